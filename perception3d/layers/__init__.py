"""Building blocks of the networks."""

from perception3d.layers.attention import SetAttention, SetEncoderLayer, SetTransformer
from perception3d.layers.normalization import RowBatchNorm
from perception3d.layers.pooling import (
    AttentionPooling,
    LinearPooling,
    MaxPooling,
    PooledCells,
    pool_cells,
)
from perception3d.layers.position import PositionEmbedding

__all__ = [
    "AttentionPooling",
    "LinearPooling",
    "MaxPooling",
    "PooledCells",
    "PositionEmbedding",
    "RowBatchNorm",
    "SetAttention",
    "SetEncoderLayer",
    "SetTransformer",
    "pool_cells",
]
