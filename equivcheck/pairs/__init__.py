"""The two sides: loaded, built, called, and given the same weights."""
