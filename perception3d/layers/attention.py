"""Set attention: every voxel attends to the voxels of its set."""

from collections.abc import Sequence

from torch import Tensor, nn

from perception3d.layers.linear import RowLinear
from perception3d.ops.linear import ACTIVATIONS, linear
from perception3d.ops.linear_norm import linear_norm
from perception3d.ops.set_attention import set_attention

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
        result: Tensor = self.out(self.mix(features, position, order, offsets))
        return result

    def mix(self, features: Tensor, position: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
        """Attend, as `forward` but for the last linear map."""
        count, channels = features.shape
        split = 2 * channels
        placed = features + position.to(features.dtype)
        query_key = linear(placed, self.qkv.weight[:split], self.qkv.bias[:split])
        value = linear(features, self.qkv.weight[split:], self.qkv.bias[split:])
        query, key = query_key.view(count, 2, self.heads, channels // self.heads).unbind(1)
        value = value.view(count, self.heads, channels // self.heads)
        mixed = set_attention(query, key, value, order, offsets)
        return mixed.reshape(count, channels)


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
        position: Tensor,
        order: Tensor,
        offsets: Tensor,
        after: Sequence[Residual] = (),
    ) -> Tensor:
        """Transform (N, C) features.

        Args:
            features, position, order, offsets: as `SetAttention.forward`.
            after: further rows to add, each sum followed by its norm.

        Returns:
            (N, C).
        """
        mixed = self.attention.mix(features, position, order, offsets)
        attended = _map_and_norm(self.attention.out, mixed, (features, self.norm1))
        hidden = linear(attended, self.linear1.weight, self.linear1.bias, self.activation)
        return _map_and_norm(self.linear2, hidden, (attended, self.norm2), *after)


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
        position: Tensor,
        order: Tensor,
        offsets: Tensor,
        after: Sequence[Residual] = (),
    ) -> Tensor:
        """Transform (N, C) features; arguments as `SetTransformer.forward`."""
        own = (features, self.norm)
        result: Tensor = self.inner(features, position, order, offsets, (own, *after))
        return result


def _map_and_norm(layer: nn.Linear, rows: Tensor, *residuals: Residual) -> Tensor:
    """Map rows, then add and normalise for every residual."""
    stages = [(kept, norm.weight, norm.bias) for kept, norm in residuals]
    (epsilon,) = {norm.eps for _, norm in residuals}
    return linear_norm(rows, layer.weight, layer.bias, stages, epsilon)
