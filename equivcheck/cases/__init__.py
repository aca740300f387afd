"""One generated problem: its fields, how it is drawn and shrunk, and its tensors, which come from a seed."""
