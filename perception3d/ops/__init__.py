"""Operators: Python border, native kernels, plain-torch reference."""

from perception3d.ops.segment_index import segment_index
from perception3d.ops.set_partition import set_partition
from perception3d.ops.window_partition import window_partition

__all__ = ["segment_index", "set_partition", "window_partition"]
