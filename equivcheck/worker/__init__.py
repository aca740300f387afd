"""Runs a pair for the supervisor: a process per worker, forked from one that has imported torch, no foreign code."""
