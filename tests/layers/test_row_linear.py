"""The module of linear maps of rows."""

import torch
import torch.nn.functional as F

from perception3d.layers import RowLinear


def test_is_a_linear_module():
    module = RowLinear(48, 64)
    assert list(module.state_dict()) == ["weight", "bias"]
    rows = torch.randn(700, 48)
    torch.testing.assert_close(module(rows), F.linear(rows, module.weight, module.bias))
    assert RowLinear(48, 64, bias=False).bias is None
