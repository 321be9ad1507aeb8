"""Set attention: every voxel attends to the voxels of its set."""

from collections.abc import Sequence

from torch import Tensor, nn

from perception3d.layers.linear import RowLinear
from perception3d.ops.linear import ACTIVATIONS
from perception3d.ops.set_transformer import TransformerParameters, attend_sets, set_transformer
from perception3d.structures import TableRows

# Rows that are added to what a layer made, and the norm of the sum.
Residual = tuple[Tensor, nn.LayerNorm]


class SetAttention(nn.Module):
    """Multi-head softmax attention inside sets; the position counts for query and key only.

    Queries, keys and values are projected once per voxel, not once per slot.

    Args:
        channels: width C, a multiple of `heads`.
        heads: attention heads H.

    Raises:
        ValueError: C is no multiple of H.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(
                f"SetAttention: channels must be a multiple of heads, got {channels} and {heads}"
            )
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = RowLinear(channels, channels)
        # The initial state of nn.MultiheadAttention.
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, position: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
        """Attend.

        Args:
            features: (N, C).
            position: (N, C) embedding.
            order: (N,) int64, voxels set by set: one sort order of a SetPartition, or Windows'.
            offsets: (sets + 1,) int64, set s holds the voxels order[offsets[s]:offsets[s + 1]].

        Returns:
            (N, C).
        """
        mixed = attend_sets(features, position, order, offsets, self.heads, _pair(self.qkv))
        result: Tensor = self.out(mixed)
        return result


class SetTransformer(nn.Module):
    """Set attention and feed-forward network, each with residual and LayerNorm (post-norm).

    Args:
        channels: width C.
        heads: attention heads.
        feedforward: hidden width of the feed-forward network.
        activation: "gelu" (exact erf form) or "relu".

    Raises:
        ValueError: unknown activation, or channels no multiple of heads.
    """

    def __init__(
        self, channels: int, heads: int, feedforward: int, activation: str = "gelu"
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"SetTransformer: activation must be one of {sorted(ACTIVATIONS)}, "
                f"got {activation!r}"
            )
        self.activation = activation
        self.attention = SetAttention(channels, heads)
        self.linear1 = RowLinear(channels, feedforward)
        self.linear2 = RowLinear(feedforward, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(
        self,
        features: Tensor,
        position: Tensor | TableRows,
        order: Tensor,
        offsets: Tensor,
        after: Sequence[Residual] = (),
    ) -> Tensor:
        """Transform (N, C) features.

        Args:
            features, order, offsets: as `SetAttention.forward`.
            position: (N, C) embedding, or rows of a table.
            after: further rows to add, each sum followed by its norm.

        Returns:
            (N, C).
        """
        if isinstance(position, TableRows):
            places, index = position.table, position.index
        else:
            places, index = position, None
        residuals = [(kept, _pair(norm)) for kept, norm in after]
        (epsilon,) = {norm.eps for norm in (self.norm1, self.norm2, *(norm for _, norm in after))}
        attention = self.attention
        layer = TransformerParameters(
            attention.heads,
            (
                _pair(attention.qkv),
                _pair(attention.out),
                _pair(self.linear1),
                _pair(self.linear2),
            ),
            (_pair(self.norm1), _pair(self.norm2)),
            self.activation,
            epsilon,
        )
        places = places.to(features.dtype)
        return set_transformer(features, places, index, order, offsets, layer, residuals)


class SetEncoderLayer(nn.Module):
    """A SetTransformer inside a second residual and LayerNorm (DSVT_EncoderLayer).

    Args: as `SetTransformer`.
    """

    def __init__(
        self, channels: int, heads: int, feedforward: int, activation: str = "gelu"
    ) -> None:
        super().__init__()
        self.inner = SetTransformer(channels, heads, feedforward, activation)
        self.norm = nn.LayerNorm(channels)

    def forward(
        self,
        features: Tensor,
        position: Tensor | TableRows,
        order: Tensor,
        offsets: Tensor,
        after: Sequence[Residual] = (),
    ) -> Tensor:
        """Transform (N, C) features; arguments as `SetTransformer.forward`."""
        own = (features, self.norm)
        result: Tensor = self.inner(features, position, order, offsets, (own, *after))
        return result


def _pair(layer: nn.Linear | nn.LayerNorm) -> tuple[Tensor, Tensor]:
    return layer.weight, layer.bias
