"""How linear attention reads and keeps rows: views, strides, memory."""

from functools import partial

import pytest
import torch
from linear_attention_samples import (
    LENGTHS,
    assert_near,
    gradients,
    leaves,
    offsets_of,
    random_inputs,
)
from peak_memory import run_for_peak
from torch.utils._python_dispatch import TorchDispatchMode

from perception3d.ops import scattered_linear_attention, scattered_linear_attention_qkv
from perception3d.ops.reference.scattered_linear_attention import (
    scattered_linear_attention as reference,
)
from perception3d.ops.reference.scattered_linear_attention import (
    scattered_linear_attention_qkv as reference_qkv,
)

native = torch.ops.perception3d


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("width", [20, 32])
def test_projection_equals_its_parts(dtype, width):
    generator = torch.Generator().manual_seed(3)
    qkv = torch.randn(sum(LENGTHS), 3, 2, width, generator=generator).to(dtype)
    offsets = offsets_of(LENGTHS)
    grad = torch.randn(qkv.shape[0], 2, width).to(dtype)
    whole, parts = leaves([qkv, qkv])
    ours = scattered_linear_attention_qkv(whole, offsets)
    split = scattered_linear_attention(*parts.unbind(1), offsets)
    assert torch.equal(ours, split)
    ours.backward(grad)
    split.backward(grad)
    assert torch.equal(whole.grad, parts.grad)
    assert_near(ours, reference_qkv(qkv.double(), offsets), 1e-5 if dtype.itemsize > 2 else 1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("width", [16, 24, 32, 20])  # some are read in place, others copied
@pytest.mark.parametrize("ordered", [False, True])
def test_views_of_any_place_give_the_same_numbers(dtype, width, ordered):
    rows, heads = sum(LENGTHS), 2
    generator = torch.Generator().manual_seed(10)
    order = torch.randperm(rows, generator=generator) if ordered else None
    inputs = [tensor.to(dtype) for tensor in random_inputs(LENGTHS, heads, width, width)]
    grad = torch.randn(rows, heads, width, generator=generator).to(dtype)
    apart = 2 * heads * width + 3  # rows and heads with gaps between them
    memory = torch.full((4, 1 + rows * apart), torch.nan, dtype=dtype)
    views = [
        one[1:].as_strided((rows, heads, width), (apart, width + 1, 1), one.storage_offset() + 1)
        for one in memory
    ]
    for view, tensor in zip(views, [*inputs, grad], strict=True):
        view.copy_(tensor)
    run = partial(gradients, scattered_linear_attention, offsets=offsets_of(LENGTHS), order=order)
    plain = run(leaves(inputs), grad=grad)
    strided = run([view.detach().requires_grad_() for view in views[:3]], grad=views[3])
    for a, b in zip(plain, strided, strict=True):
        assert torch.equal(a, b)


class CallLog(TorchDispatchMode):
    """Names of all operators called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))


def test_views_of_one_projection_are_read_in_place():
    projection = torch.randn(70, 3 * 4 * 8 + 5)  # rows may have more columns yet
    parts = [projection[:, 32 * i + 2 : 32 * i + 34].view(70, 4, 8) for i in range(3)]
    offsets = offsets_of((30, 40))
    with CallLog() as log:
        result = scattered_linear_attention(*parts, offsets)
    assert log.names == ["perception3d::scattered_linear_attention"]
    copies = [part.contiguous() for part in parts]
    assert torch.equal(result, scattered_linear_attention(*copies, offsets))


def test_other_strides():
    """Axes in another order, gaps in the last axis, heads that share memory, expanded gradient."""
    offsets = offsets_of((5, 11))
    query = torch.randn(3, 16, 8, dtype=torch.float64).transpose(0, 1)
    key = torch.randn(16, 3, 16, dtype=torch.float64)[..., ::2]
    value = torch.randn(16, 1, 6, dtype=torch.float64).expand(16, 3, 6)
    ours, theirs = leaves([query, key, value]), leaves([query, key, value])
    for leaf, like in zip(ours, (query, key, value), strict=True):
        assert leaf.stride() == like.stride()
    result = scattered_linear_attention(*ours, offsets)
    wanted = reference(*theirs, offsets)
    torch.testing.assert_close(result, wanted)
    result.sum().backward()
    wanted.sum().backward()
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got.grad, want.grad)


def test_memory_grows_with_rows_not_with_windows():
    """One window of 2,000 rows among 5,000 of one: D * E sums each would take 320 MiB."""
    lengths = [1] * 2500 + [2000] + [1] * 2500
    heads, width = 4, 64
    inputs = leaves(random_inputs(lengths, heads, width, width))
    offsets = offsets_of(lengths)
    grad = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(6))
    run = partial(gradients, scattered_linear_attention, inputs, grad, offsets, epsilon=1.0)
    ours, peak = run_for_peak(run)
    own = sum(tensor.nbytes for tensor in ours)
    assert peak < own + 16 * 2**20
    # Windows know nothing of each other, so 101 of them are enough to compare.
    near = slice(2450, 4550)
    exact = leaves([leaf[near] for leaf in inputs], torch.float64)
    middle = offsets_of([1] * 50 + [2000] + [1] * 50)
    wanted = gradients(reference, exact, grad[near], middle, epsilon=1.0)
    for got, want in zip(ours, wanted, strict=True):
        assert_near(got[near], want, 1e-5)


def test_only_inputs_are_kept_for_the_backward_pass():
    inputs = leaves(random_inputs((5, 60), 2, 8, 8))
    offsets = offsets_of((5, 60))
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scattered_linear_attention(*inputs, offsets)
    addresses = {tensor.data_ptr() for tensor in (*inputs, offsets)}
    assert {tensor.data_ptr() for tensor in kept} == addresses


def test_rows_further_apart_than_31_bits():
    """Two rows 2^31 numbers apart: memory that is not touched is not there."""
    apart = 2**31 + 8
    memory = torch.empty(apart + 24, dtype=torch.bfloat16)
    qkv = memory.as_strided((2, 3, 1, 8), (apart, 8, 8, 1))
    small = torch.randn(2, 3, 1, 8, generator=torch.Generator().manual_seed(8)).bfloat16()
    qkv.copy_(small)
    offsets = torch.tensor([0, 2])
    assert torch.equal(
        scattered_linear_attention_qkv(qkv, offsets), scattered_linear_attention_qkv(small, offsets)
    )
