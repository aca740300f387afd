"""Float64 truth, the errors of rounding, and the comparison of the two."""
