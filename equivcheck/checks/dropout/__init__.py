"""Dropout: masks are read off a candidate and put into the oracle, and their distribution is tested."""
