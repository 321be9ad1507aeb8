"""Attention of a TransFusionHead: queries look at each other and at the map (CVPR 2022)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception3d.models.heads.transfusion_branches import TransFusionLayers
from perception3d.ops.linear import linear


class CellEmbedding(nn.Module):
    """Linear map - BatchNorm - ReLU - linear map of places in cells; float32 under autocast too.

    Args:
        layers: width and BatchNorm settings.
    """

    def __init__(self, layers: TransFusionLayers) -> None:
        super().__init__()
        width = layers.channels
        self.conv1 = nn.Conv1d(2, width, 1)
        self.norm = nn.BatchNorm1d(width, eps=layers.norm_eps, momentum=layers.norm_momentum)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, places: Tensor) -> Tensor:
        """Map (B, N, 2) x, y to (B, N, channels)."""
        with torch.autocast(places.device.type, enabled=False):
            columns = places.to(self.conv1.weight.dtype).transpose(1, 2)
            hidden = torch.relu(self.norm(self.conv1(columns)))
            embedding: Tensor = self.conv2(hidden)
            return embedding.transpose(1, 2)


class QueryAttention(nn.Module):
    """Multi-head softmax attention whose values are its keys, positions included.

    Args:
        channels: width C, a multiple of `heads`.
        heads: attention heads.
        dropout: probability that a weight is left out.
    """

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, queries: Tensor, keys: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            queries: (B, Q, C).
            keys: (B, K, C).
            bias: (B, Q, K) added to the logits of every head; None: nothing.

        Returns:
            (B, Q, C).
        """
        width = queries.shape[2]
        weight, shift = self.qkv.weight, self.qkv.bias
        query = self._split(F.linear(queries, weight[:width], shift[:width]))
        rows = linear(keys.flatten(0, 1), weight[width:], shift[width:])
        key, value = rows.view(*keys.shape[:2], 2 * width).chunk(2, dim=2)
        mixed = F.scaled_dot_product_attention(
            query,
            self._split(key),
            self._split(value),
            attn_mask=None if bias is None else bias[:, None].to(query.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def _split(self, rows: Tensor) -> Tensor:
        """Turn (B, N, C) into (B, heads, N, C / heads)."""
        return rows.view(*rows.shape[:2], self.heads, -1).transpose(1, 2)


class QueryTransformer(nn.Module):
    """Self-attention, cross-attention, feed-forward network, each with residual and LayerNorm.

    Args:
        layers: widths, heads, dropout and reach.
    """

    def __init__(self, layers: TransFusionLayers) -> None:
        super().__init__()
        width = layers.channels
        self.layers = layers
        self.self_attention = QueryAttention(width, layers.heads, layers.dropout)
        self.cross_attention = QueryAttention(width, layers.heads, layers.dropout)
        self.linear1 = nn.Linear(width, layers.feedforward)
        self.linear2 = nn.Linear(layers.feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(layers.dropout)
        self.query_position = CellEmbedding(layers)
        self.key_position = CellEmbedding(layers)
        for linear_map in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear_map.weight)

    def forward(self, queries: Tensor, bev: Tensor, cells: Tensor, places: Tensor) -> Tensor:
        """Transform queries.

        Args:
            queries: (B, Q, C).
            bev: (B, C, rows, columns).
            cells: (B, Q) int64, row * columns + column of each query.
            places: (rows * columns, 2) x, y of the middle of each cell, in cells.

        Returns:
            (B, Q, C).
        """
        layers = self.layers
        position = self.query_position(places[cells])
        placed = queries + position
        bias = None
        if layers.local_radius is not None:
            # Each query is alone with its cells: its own self-attention is a linear map.
            placed = placed.flatten(0, 1)[:, None]
            rows, columns = bev.shape[2:]
            bias = local_bias(
                cells, (rows, columns), layers.local_radius, wrap=layers.local_border == "wrap"
            )
        mixed = self.self_attention(placed, placed).view_as(queries)
        queries = self.norm1(queries + self.dropout(mixed))
        # Differs: with a radius the published networks take the batch statistics of these
        # positions over the squares of all queries, here over the map.
        keys = bev.flatten(2).transpose(1, 2) + self.key_position(places[None])
        mixed = self.cross_attention(queries + position, keys, bias)
        queries = self.norm2(queries + self.dropout(mixed))
        hidden = self.dropout(torch.relu(self.linear1(queries)))
        result: Tensor = self.norm3(queries + self.dropout(self.linear2(hidden)))
        return result


def local_bias(cells: Tensor, shape: tuple[int, int], radius: int, *, wrap: bool) -> Tensor:
    """Return the logarithm of how often the square around a query holds each cell of the map.

    Added to the logits of an attention to the whole map, it makes one to the cells of the square:
    a key that is there n times has n times the weight.

    Args:
        cells: (B, Q) int64, row * columns + column of each query.
        shape: rows and columns of the map.
        radius: cells on each side; the square has (2 radius + 1)^2.
        wrap: see TransFusionLayers.local_border.

    Returns:
        (B, Q, rows * columns) float32, -inf for cells that it does not hold.
    """
    rows, columns = shape
    reach = torch.arange(-radius, radius + 1, device=cells.device)
    if wrap:
        offsets = (reach[:, None] * columns + reach).flatten()
        found = cells[..., None] + offsets
        inside = (found >= 0) & (found < rows * columns)
        found = torch.where(inside, found, rows * columns)
    else:
        row = (cells[..., None] // columns + reach).clamp(0, rows - 1)
        column = (cells[..., None] % columns + reach).clamp(0, columns - 1)
        found = (row[..., :, None] * columns + column[..., None, :]).flatten(2)
    # The column behind the last takes what lies beyond the map.
    counts = torch.zeros(*cells.shape, rows * columns + 1, device=cells.device)
    counts.scatter_add_(2, found, torch.ones_like(found, dtype=counts.dtype))
    # Only of what is there: most of the map is not, and the logarithm of 0 is slow.
    logarithms = counts.gather(2, found).log()
    bias = torch.full_like(counts, -math.inf).scatter_(2, found, logarithms)
    return bias[..., :-1].contiguous()
