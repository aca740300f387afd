"""Other ways to compute the shipped attention: no check may call one of these different."""
