"""Has a pair judged in processes of its own, and makes the verdict of what they answer: no torch and no code under test in it."""
