"""Convolutions with the norm inside equal convolution, norm and ReLU one after the other."""

import pytest
import torch
from torch import nn
from torch.profiler import profile

from perception3d.layers.conv_norm import NormedConv, conv_norm

CONVOLUTIONS = {
    "3x3": nn.Conv2d(6, 9, 3, padding=1, bias=False),
    "3x3, stride 2, bias": nn.Conv2d(6, 9, 3, 2, 1),
    "transposed, stride 1": nn.ConvTranspose2d(6, 9, 1, 1, bias=False),
    "transposed, stride 2, bias": nn.ConvTranspose2d(6, 9, 2, 2),
}
EACH = pytest.mark.parametrize("conv", CONVOLUTIONS.values(), ids=CONVOLUTIONS)


def settled_norm():
    """A norm that does something, in evaluation."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(9, eps=1e-3)
    for values in (norm.weight.data, norm.running_mean, norm.running_var):
        values.uniform_(0.5, 2.0)
    norm.bias.data.normal_()
    return norm.eval()


def norms_of(run):
    """How many norms ran."""
    with profile() as record:
        run()
    return sum(event.name == "aten::batch_norm" for event in record.events())


@EACH
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_equals_one_after_the_other(conv, relu, memory):
    norm, bev = settled_norm(), torch.randn(2, 6, 8, 12).to(memory_format=memory)
    before = bev.clone()
    wanted = norm(conv(bev))
    wanted = torch.relu(wanted) if relu else wanted
    torch.testing.assert_close(conv_norm(conv, norm, bev, relu=relu), wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(bev, before)
    assert norms_of(lambda: conv_norm(conv, norm, bev, relu=relu)) == 0


@EACH
def test_nothing_is_folded_elsewhere(conv):
    norm, bev = settled_norm(), torch.randn(2, 6, 8, 12)
    assert norms_of(lambda: conv_norm(conv, norm, bev)) == 1  # gradients
    with torch.no_grad():
        assert norms_of(lambda: conv_norm(conv, norm.train(), bev)) == 1
        norm.eval()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert norms_of(lambda: conv_norm(conv, norm, bev)) == 1
        graph = str(torch.export.export(NormedConv(conv, norm), (bev,)).graph)
    assert "batch_norm" in graph


@EACH
def test_gradients_are_those_of_torch(conv):
    layer = NormedConv(conv, settled_norm().train(), relu=True)
    plain = nn.Sequential(conv, settled_norm().train(), nn.ReLU())
    assert list(layer.state_dict()) == list(plain.state_dict())
    bev = torch.randn(2, 6, 8, 12, requires_grad=True)
    found, wanted = (
        torch.autograd.grad(net(bev).square().sum(), [bev, *net.parameters()])
        for net in (layer, plain)
    )
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)
