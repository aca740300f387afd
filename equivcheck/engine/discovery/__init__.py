"""The domain of a pair by trial: where the original runs, and what the candidate alone refuses."""
