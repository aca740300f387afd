"""The shipped attention with one fault inside."""
