"""One generated problem: what varies, how it is drawn and shrunk, and its tensors, made from a seed."""
