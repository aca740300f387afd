"""Dropout: masks read off and put into the oracle, and what they are in distribution."""
