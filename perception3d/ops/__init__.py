"""Operators: Python border, native kernels, plain-torch reference."""

from perception3d.ops.segment_index import segment_index

__all__ = ["segment_index"]
