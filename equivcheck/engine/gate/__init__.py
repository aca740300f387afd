"""Committed reports, held against the source as it stands."""
