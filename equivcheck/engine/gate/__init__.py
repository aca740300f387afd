"""Committed reports, compared with the source as it stands."""
