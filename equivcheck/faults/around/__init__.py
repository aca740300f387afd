"""Any original with one thing wrong around it."""
