"""The two sides of a pair: how they are loaded, built, called, and given the same weights."""
