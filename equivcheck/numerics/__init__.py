"""The oracle in float64, the model of rounding errors, and the comparison of a candidate with both."""
