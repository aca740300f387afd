"""The shipped attention with one thing wrong inside."""
