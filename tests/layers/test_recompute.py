"""Activation checkpointing: the same gradients, statistics counted once, activations not kept."""

import pytest
import torch
from torch import nn

from perception3d.layers.recompute import recompute_in_backward


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


def run(net: nn.Module, inputs: torch.Tensor, *, save_memory: bool) -> torch.Tensor:
    leaf = inputs.clone().requires_grad_()
    result = leaf
    for _ in range(2):  # one norm twice in a graph, as a shared position embedding
        result = recompute_in_backward(net, result, modules=[net]) if save_memory else net(result)
    result.square().sum().backward()
    return leaf.grad


@pytest.mark.parametrize("momentum", [0.1, None])
def test_gradients_and_statistics_are_equal_bit_for_bit(momentum: float | None):
    plain, saving = network(), network()
    inputs = torch.randn(20, 4)
    for net in (plain, saving):
        net[1].momentum = momentum
    wanted = run(plain, inputs, save_memory=False)
    got = run(saving, inputs, save_memory=True)
    assert torch.equal(got, wanted)
    for (name, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name
    for (name, ours), theirs in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        assert torch.equal(ours, theirs[1]), name
    assert int(saving[1].num_batches_tracked) == 2


def test_buffers_are_the_same_objects_afterwards_also_after_an_error():
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.calls = 0

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("second call")
            return self.norm(rows).square()

    net = Broken()
    before = dict(net.named_buffers())
    leaf = torch.randn(5, 3, requires_grad=True)
    result = recompute_in_backward(net, leaf, modules=[net])
    with pytest.raises(RuntimeError, match="second call"):
        result.sum().backward()
    assert all(buffer is before[name] for name, buffer in net.named_buffers())


def test_only_inputs_are_kept():
    net = network()
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    leaf = torch.randn(20, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        recompute_in_backward(net, leaf, modules=[net])
    assert sum(kept) <= leaf.numel()
