"""Long sequences, judged by blocks of queries."""
