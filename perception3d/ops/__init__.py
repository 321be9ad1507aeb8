"""Operators: Python border, native kernels, plain-torch reference."""

from perception3d.ops.box_overlap import box_iou, box_overlap
from perception3d.ops.causal_conv1d import causal_conv1d
from perception3d.ops.curve_order import curve_index, curve_order
from perception3d.ops.depthwise_conv import depthwise_conv
from perception3d.ops.hard_voxelize import hard_voxelize
from perception3d.ops.linear import linear
from perception3d.ops.mamba_mixer import MambaParameters, NormParameters, mamba_mixer
from perception3d.ops.points_in_boxes import box_of_point, points_in_boxes
from perception3d.ops.rotated_nms import circle_nms, rotated_nms
from perception3d.ops.scattered_linear_attention import (
    scattered_linear_attention,
    scattered_linear_attention_qkv,
)
from perception3d.ops.segment_index import segment_index
from perception3d.ops.segment_reduce import segment_reduce
from perception3d.ops.selective_scan import selective_scan
from perception3d.ops.set_attention import set_attention, set_attention_qk
from perception3d.ops.set_partition import set_partition
from perception3d.ops.set_transformer import TransformerParameters, attend_sets, set_transformer
from perception3d.ops.sparse_conv import sparse_conv
from perception3d.ops.sparse_index import sparse_index
from perception3d.ops.subm_conv import subm_conv
from perception3d.ops.subm_index import subm_index
from perception3d.ops.voxel_grid import voxel_grid_size
from perception3d.ops.voxelize import voxelize
from perception3d.ops.window_partition import window_partition

__all__ = [
    "MambaParameters",
    "NormParameters",
    "TransformerParameters",
    "attend_sets",
    "box_iou",
    "box_of_point",
    "box_overlap",
    "causal_conv1d",
    "circle_nms",
    "curve_index",
    "curve_order",
    "depthwise_conv",
    "hard_voxelize",
    "linear",
    "mamba_mixer",
    "points_in_boxes",
    "rotated_nms",
    "scattered_linear_attention",
    "scattered_linear_attention_qkv",
    "segment_index",
    "segment_reduce",
    "selective_scan",
    "set_attention",
    "set_attention_qk",
    "set_partition",
    "set_transformer",
    "sparse_conv",
    "sparse_index",
    "subm_conv",
    "subm_index",
    "voxel_grid_size",
    "voxelize",
    "window_partition",
]
