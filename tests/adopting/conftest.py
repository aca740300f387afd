# repositories of their own, with a conftest.py each: test_adopting.py runs them in a process of their own
collect_ignore = ["function", "projection", "replacement"]
