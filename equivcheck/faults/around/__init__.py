"""Faults around an original of any kind."""
