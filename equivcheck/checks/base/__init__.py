"""Parts that checks share: comparing results, transforms, modifications, memory that is retained, and targets."""
