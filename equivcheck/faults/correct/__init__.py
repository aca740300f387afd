"""The shipped attention in other words: no check may call one of these different."""
