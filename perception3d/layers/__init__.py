"""Building blocks of the networks."""

from perception3d.layers.attention import SetAttention, SetEncoderLayer, SetTransformer
from perception3d.layers.linear import RowLinear
from perception3d.layers.normalization import RowBatchNorm
from perception3d.layers.pooling import (
    AttentionPooling,
    LinearPooling,
    MaxPooling,
    PooledCells,
    pool_cells,
)
from perception3d.layers.position import ImplicitWindowEmbedding, PositionEmbedding
from perception3d.layers.recompute import recompute_in_backward
from perception3d.layers.sparse_conv import (
    InverseConv3d,
    SparseConv3d,
    SparseConvBlock,
    SparseResidualBlock,
    SparseSkipBlock,
    SubMConv3d,
)

__all__ = [
    "AttentionPooling",
    "ImplicitWindowEmbedding",
    "InverseConv3d",
    "LinearPooling",
    "MaxPooling",
    "PooledCells",
    "PositionEmbedding",
    "RowBatchNorm",
    "RowLinear",
    "SetAttention",
    "SetEncoderLayer",
    "SetTransformer",
    "SparseConv3d",
    "SparseConvBlock",
    "SparseResidualBlock",
    "SparseSkipBlock",
    "SubMConv3d",
    "pool_cells",
    "recompute_in_backward",
]
