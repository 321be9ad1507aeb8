"""Loading official weights: every tensor is accounted for, and nothing is half-loaded."""

from pathlib import Path

import pytest
import torch
from torch import nn

from perception3d.checkpoint import CheckpointError, load_official, read_official, translate
from perception3d.checkpoint.load import fit_layout


class OneLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"linear": nn.Linear(2, 3, bias=False)})])


class OnlyEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = OneLayer()


NAME = "pfn_layers.0.linear.weight"


def test_whole_detector_and_part_reach_the_same_tensor():
    weight = torch.arange(6.0).reshape(3, 2)
    whole, part = OnlyEncoder(), OneLayer()
    report = load_official(whole, {f"vfe.{NAME}": weight, "global_step": torch.zeros(1)}, "dsvt")
    assert report.ignored == ("global_step",)
    assert report.complete
    load_official(part, {NAME: weight}, "dsvt", part="vfe")
    assert torch.equal(whole.encoder.layers[0]["linear"].weight, weight)
    assert torch.equal(part.layers[0]["linear"].weight, weight)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "1 missing"),
        ({NAME: torch.ones(3, 2), "pfn_layers.1.linear.weight": torch.ones(1)}, "1 unexpected"),
        ({NAME: torch.ones(3, 2), "no.such.name": torch.ones(1)}, "no.such.name"),
        ({NAME: torch.ones(4, 2)}, r"\(4, 2\) for layers.0.linear.weight \(3, 2\)"),
    ],
)
def test_strict_loading_raises_and_changes_nothing(weights: dict, message: str):
    model = OneLayer()
    before = model.layers[0]["linear"].weight.clone()
    with pytest.raises(CheckpointError, match=message):
        load_official(model, weights, "dsvt", part="vfe")
    assert torch.equal(model.layers[0]["linear"].weight, before)


def test_loose_loading_reports():
    report = load_official(OneLayer(), {"no.such.name": torch.ones(1)}, "dsvt", strict=False)
    assert report.missing == ("layers.0.linear.weight",)
    assert report.unexpected == ("no.such.name",)
    assert not report.complete


def test_unknown_system_and_part_are_named():
    with pytest.raises(ValueError, match="system must be one of"):
        load_official(OneLayer(), {NAME: torch.ones(3, 2)}, "nothing")
    with pytest.raises(ValueError, match="part must be one of"):
        translate(NAME, "dsvt", part="nothing")


def test_sparse_convolution_layouts_by_shape():
    weight = torch.randn(3, 3, 3, 4, 5)  # spconv 1.x
    turned = fit_layout(weight, (5, 3, 3, 3, 4))
    assert turned is not None
    assert torch.equal(turned, weight.permute(4, 0, 1, 2, 3))
    back = fit_layout(turned, (3, 3, 3, 4, 5))
    assert back is not None
    assert torch.equal(back, weight)


def test_axes_of_length_one_come_and_go():
    weight = torch.randn(4, 3)
    fitted = fit_layout(weight, (4, 3, 1, 1))
    assert fitted is not None
    assert torch.equal(fitted[..., 0, 0], weight)
    assert fit_layout(weight, (3, 4)) is None


def test_files_are_read_without_executing(tmp_path: Path):
    weights = {NAME: torch.ones(3, 2)}
    torch.save({"model_state": weights, "epoch": 1}, tmp_path / "good.pth")
    assert torch.equal(read_official(tmp_path / "good.pth")[NAME], weights[NAME])
    torch.save({"model_state": weights, "hook": Path}, tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_official(tmp_path / "code.pth")
    torch.save({"epoch": 1}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_official(tmp_path / "empty.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_official(tmp_path / "text.pth")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_official(tmp_path / "none.pth")
