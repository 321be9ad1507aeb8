"""Operators in plain torch: the specification of the kernels, on any device."""
