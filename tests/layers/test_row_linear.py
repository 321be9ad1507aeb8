"""The module of linear maps of rows."""

import pytest
import torch
import torch.nn.functional as F

from perception3d.layers import RowLinear
from perception3d.layers.linear import linear_norm_relu
from perception3d.layers.normalization import RowBatchNorm


def test_is_a_linear_module():
    module = RowLinear(48, 64)
    assert list(module.state_dict()) == ["weight", "bias"]
    rows = torch.randn(700, 48)
    torch.testing.assert_close(module(rows), F.linear(rows, module.weight, module.bias))
    assert RowLinear(48, 64, bias=False).bias is None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_norm_and_relu_behind_a_map(bias, training):
    torch.manual_seed(0)
    layer, norm = RowLinear(9, 20, bias=bias), RowBatchNorm(20).train(training)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    rows = torch.randn(70, 9)
    numbers = layer(rows).double()
    mean = numbers.mean(0) if training else norm.running_mean.double()
    variance = numbers.var(0, unbiased=False) if training else norm.running_var.double()
    normal = (numbers - mean) / torch.sqrt(variance + norm.eps)
    wanted = (normal * norm.weight + norm.bias).clamp(min=0)
    torch.testing.assert_close(
        linear_norm_relu(layer, norm, rows).double(), wanted, rtol=1e-4, atol=1e-5
    )
    with torch.no_grad():
        found = linear_norm_relu(layer, norm, rows)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
