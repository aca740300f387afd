"""Runs a pair for the supervisor: one process per worker, forked from one that has imported torch and no foreign code."""
