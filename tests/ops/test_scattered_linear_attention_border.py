"""Linear attention at its border: nothing to do, torch around it, what it refuses."""

import pytest
import torch
from linear_attention_samples import leaves, offsets_of, random_inputs

from perception3d.ops import scattered_linear_attention, scattered_linear_attention_qkv

native = torch.ops.perception3d


def test_second_differentiation_is_refused():
    inputs = leaves(random_inputs((4,), 1, 2, 2))
    result = scattered_linear_attention(*inputs, offsets_of((4,)))
    (grad,) = torch.autograd.grad(result.square().sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="there is no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)])
def test_no_rows(lengths):
    inputs = leaves(random_inputs(lengths, 2, 8, 5))
    result = scattered_linear_attention(*inputs, offsets_of(lengths))
    assert result.shape == (0, 2, 5)
    result.sum().backward()
    assert inputs[2].grad.shape == (0, 2, 5)
    assert scattered_linear_attention_qkv(torch.zeros(0, 3, 2, 8), offsets_of(lengths)).shape == (
        0,
        2,
        8,
    )


@pytest.mark.parametrize(("heads", "width", "value_width"), [(0, 4, 4), (2, 0, 4), (2, 4, 0)])
def test_no_numbers(heads, width, value_width):
    inputs = leaves(random_inputs((3, 2), heads, width, value_width))
    result = scattered_linear_attention(*inputs, offsets_of((3, 2)))
    assert torch.equal(result, torch.zeros(5, heads, value_width))
    result.sum().backward()
    for leaf in inputs:
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))


@pytest.mark.parametrize("grad", [False, True])
def test_opcheck(grad):
    query, key, value = (leaf.requires_grad_(grad) for leaf in random_inputs((3, 0, 7), 2, 8, 5))
    offsets, order = offsets_of((3, 0, 7)), torch.arange(9, -1, -1)
    forward = native.scattered_linear_attention
    torch.library.opcheck(forward, (query, key, value, offsets, order, 1e-6))
    torch.library.opcheck(forward, (query, key, value, offsets, None, 1e-6))
    qkv = torch.randn(10, 3, 2, 8, requires_grad=grad)
    torch.library.opcheck(native.scattered_linear_attention_qkv, (qkv, offsets, order, 1e-6))
    if not grad:
        torch.library.opcheck(
            native.scattered_linear_attention_backward,
            (torch.randn(10, 2, 5), query, key, value, offsets, order, 1e-6),
        )


def test_compiles_whole_with_gradient():
    offsets = offsets_of((30, 12))
    linear = torch.nn.Linear(16, 48, bias=False)

    def loss(features):
        qkv = linear(features).view(-1, 3, 2, 8)
        parts = scattered_linear_attention(*qkv.unbind(1), offsets)
        return (parts + scattered_linear_attention_qkv(qkv, offsets)).square().sum()

    plain = torch.randn(42, 16, requires_grad=True)
    loss(plain).backward()
    compiled = plain.detach().clone().requires_grad_()
    torch.compile(loss, fullgraph=True, backend="aot_eager")(compiled).backward()
    torch.testing.assert_close(compiled.grad, plain.grad)


def test_errors():
    query, key, value = random_inputs((3, 2), 2, 8, 5)
    offsets, order = offsets_of((3, 2)), torch.arange(5)

    def attend(**changes):
        arguments = {"query": query, "key": key, "value": value, "offsets": offsets, **changes}
        return scattered_linear_attention(**arguments)

    with pytest.raises(
        TypeError, match=r"query must be \(N, H, D\) float32 or .*got \(5, 2, 8\) int"
    ):
        attend(query=query.int())
    with pytest.raises(ValueError, match=r"query must be \(N, H, D\)"):
        attend(query=query[0])
    with pytest.raises(
        TypeError, match=r"key must be \(5, 2, 8\) float32, got \(5, 2, 8\) float64"
    ):
        attend(key=key.double())
    with pytest.raises(ValueError, match=r"key must be \(5, 2, 8\) float32, got \(5, 2, 7\)"):
        attend(key=key[..., 1:])
    with pytest.raises(ValueError, match=r"value must be \(5, 2, E\) float32, got \(4, 2, 5\)"):
        attend(value=value[1:])
    with pytest.raises(TypeError, match=r"offsets must be \(W \+ 1,\) int64"):
        attend(offsets=offsets.int())
    with pytest.raises(
        ValueError, match=r"offsets must be \(W \+ 1,\) int64 with W >= 0, got \(0,\)"
    ):
        attend(offsets=offsets[:0])
    with pytest.raises(ValueError, match=r"order must be \(5,\) int64, got \(4,\)"):
        attend(order=order[1:])
    with pytest.raises(ValueError, match="one device, got query on cpu, offsets on meta"):
        attend(offsets=offsets.to("meta"))
    with pytest.raises(ValueError, match="one device, got query on cpu, key on meta"):
        attend(key=key.to("meta"))
    for epsilon in (0.0, -1.0, torch.inf, torch.nan):
        with pytest.raises(ValueError, match="epsilon must be > 0 and finite, got"):
            attend(epsilon=epsilon)
    with pytest.raises(ValueError, match=r"qkv must be \(N, 3, H, D\)"):
        scattered_linear_attention_qkv(torch.zeros(5, 2, 2, 8), offsets)


def test_errors_of_contents():
    inputs = random_inputs((3, 2), 2, 8, 5)
    for bad, message in (
        ([0, 3], "offsets must run from 0 to 5, got 0 to 3"),
        ([1, 3, 5], "offsets must run from 0 to 5, got 1 to 5"),
        ([0, 7, 5], "offsets must ascend, got 7 before 5"),
    ):
        with pytest.raises(RuntimeError, match=message):
            scattered_linear_attention(*inputs, torch.tensor(bad))
    for bad, message in (
        ([0, 1, 2, 3, 5], r"order must be in 0\.\.4, got 5 in place 4"),
        ([0, -1, 2, 3, 4], r"order must be in 0\.\.4, got -1 in place 1"),
        ([0, 1, 2, 1, 4], "order must be a permutation, got 1 twice"),
    ):
        with pytest.raises(RuntimeError, match=message):
            scattered_linear_attention(*inputs, offsets_of((3, 2)), order=torch.tensor(bad))
    offsets, strange = offsets_of((3, 2)), inputs[0][..., ::2]
    with pytest.raises(RuntimeError, match="query must have stride 1 in its last dimension, got 2"):
        native.scattered_linear_attention(
            strange, inputs[0][..., :4], inputs[2], offsets, None, 1.0
        )
