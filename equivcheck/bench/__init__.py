"""Time and memory of a pair, measured in pairs."""
