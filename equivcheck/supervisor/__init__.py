"""Has workers run a pair, and makes the verdict of their answers; it imports neither torch nor code under test."""
