"""Floating-point operations of a run, those of our operators from the rows they really combine.

A multiply-add counts as two, as in torch.utils.flop_counter.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from perception3d.ops.library import load_library

Result = TypeVar("Result")


class RawFlops:
    """A formula that is given the operator's tensors, not only their shapes."""

    _get_raw = True

    def __init__(self, count: Callable[..., int]) -> None:
        self.count = count

    def __call__(self, *arguments: object, out_val: object = None) -> int:  # torch's name
        """Return the operations of one call."""
        return self.count(*arguments)


def count_flops(run: Callable[[], Result]) -> tuple[Result, int]:
    """Run once; return the result and the operations of products, convolutions and attention."""
    counter = FlopCounterMode(display=False, custom_mapping=operator_flops())
    with counter:
        result = run()
    return result, counter.get_total_flops()


def operator_flops() -> dict[Any, RawFlops]:
    """Return the formula of every operator that multiplies and that torch has none for."""
    native = load_library()
    formulas: dict[Any, Callable[..., int]] = {
        native.linear: _linear,
        native.linear_weight_gradient: _linear_weight,
        native.set_attention: _set_attention,
        native.set_attention_qk: _set_attention_qk,
        native.set_transformer: _set_transformer,
        native.mamba_mixer: _mamba_mixer,
        native.scattered_linear_attention: _linear_attention,
        native.scattered_linear_attention_qkv: _linear_attention_qkv,
        native.subm_conv: _subm_conv,
        native.sparse_conv: _sparse_conv,
        native.depthwise_conv: _depthwise_conv,
    }
    return {operator: RawFlops(count) for operator, count in formulas.items()}


def _linear(rows: Tensor, weight: Tensor, *settings: object) -> int:
    return 2 * rows.numel() * weight.shape[0]


def _linear_weight(grad: Tensor, rows: Tensor, needs_bias: bool) -> int:
    return 2 * rows.numel() * grad.shape[1]


def _set_attention(
    query: Tensor, key: Tensor, value: Tensor, order: Tensor, offsets: Tensor, *settings: object
) -> int:
    return _attention(query.shape[1] * query.shape[2], offsets)


def _set_attention_qk(query_key: Tensor, *others: Any) -> int:  # noqa: ANN401  # the operator's
    return _set_attention(*query_key.unbind(1), *others)


def _attention(channels: int, offsets: Tensor) -> int:
    """Two products of every query with the keys of its set."""
    return 2 * (2 * int((offsets.diff() ** 2).sum()) * channels)


def _set_transformer(
    rows: Tensor,
    table: Tensor,
    index: Tensor,
    order: Tensor,
    offsets: Tensor,
    heads: int,
    weights: list[Tensor],
    *settings: object,
) -> int:
    """Four maps of the rows, queries and keys of the table, and attention."""
    channels = rows.shape[1]
    maps = rows.shape[0] * sum(weight.numel() for weight in weights)
    return 2 * (maps + 2 * table.numel() * channels) + _attention(channels, offsets)


def _mamba_mixer(  # noqa: PLR0913  # the arguments of the operator
    rows: Tensor,
    added: Tensor | None,
    offsets: Tensor,
    order: Tensor | None,
    reverse: bool,
    norm: Tensor,
    epsilon: float,
    in_proj: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    x_proj: Tensor,
    step_proj: Tensor,
    step_bias: Tensor,
    A: Tensor,
    skip: Tensor,
    out_proj: Tensor,
    *settings: object,
) -> int:
    """Four maps of the rows; convolutions and scans alone are not counted either."""
    maps = (in_proj, x_proj, step_proj, out_proj)
    return 2 * rows.shape[0] * sum(weight.numel() for weight in maps)


def _linear_attention(query: Tensor, key: Tensor, value: Tensor, *tables: object) -> int:
    """Per row an outer product and a product with the sums, each with a column for the norm."""
    rows, heads, width = query.shape
    return 2 * (2 * rows * heads * width * (value.shape[2] + 1))


def _linear_attention_qkv(qkv: Tensor, *tables: object) -> int:
    return _linear_attention(*qkv.unbind(1))


def _subm_conv(features: Tensor, neighbours: Tensor, weight: Tensor, bias: Tensor | None) -> int:
    return 2 * _pairs(neighbours) * weight.shape[1] * weight.shape[2]


def _sparse_conv(
    features: Tensor, inputs: Tensor, outputs: Tensor, weight: Tensor, bias: Tensor | None
) -> int:
    return 2 * _pairs(inputs) * weight.shape[1] * weight.shape[2]


def _depthwise_conv(
    features: Tensor, neighbours: list[Tensor], weights: list[Tensor], *settings: object
) -> int:
    pairs = zip(neighbours, weights, strict=True)
    return sum(2 * _pairs(table) * weight.shape[1] for table, weight in pairs)


def _pairs(table: Tensor) -> int:
    return int((table >= 0).sum())
