"""One run: which checks and cases, how they are searched, and whether planted faults were seen."""
