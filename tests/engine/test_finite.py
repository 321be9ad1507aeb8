import math

import pytest
import torch
from toy_training import ToyDataset, ToyNet

from perception3d.data.collate import collate
from perception3d.engine.finite import NonFiniteError, floats
from perception3d.engine.trainable import TrainableModel
from perception3d.structures import Batch, Boxes3D, Detections


@pytest.fixture
def batch() -> Batch:
    return collate([ToyDataset()[0], ToyDataset()[1]])["batch"]


def losses_of(model: TrainableModel, batch: Batch) -> None:
    model.parse_losses(model(batch, mode="loss"))


def test_finite_losses_are_summed(batch: Batch) -> None:
    model = TrainableModel(ToyNet())
    total, entries = model.parse_losses(model(batch, mode="loss"))
    assert total.requires_grad
    assert list(entries) == ["loss", "loss_height", "shown"]  # "shown" is not added
    assert float(total.detach()) == pytest.approx(float(entries["loss_height"]))
    assert not entries["loss"].requires_grad


def test_the_first_module_is_named(batch: Batch) -> None:
    model = TrainableModel(ToyNet())

    def poison(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output / 0.0

    model.net.backbone.norm.register_forward_hook(poison)
    before = model.net.backbone.norm.running_mean.clone()
    losses = model(batch, mode="loss")
    after = model.net.backbone.norm.running_mean.clone()
    assert not torch.equal(before, after)
    with pytest.raises(NonFiniteError) as caught:
        model.parse_losses(losses)
    assert "first in the output of module backbone.norm (BatchNorm1d)" in str(caught.value)
    assert "loss loss_height is" in str(caught.value)
    # the search leaves the running statistics as the step left them
    assert torch.equal(model.net.backbone.norm.running_mean, after)


def test_bad_weights_are_named(batch: Batch) -> None:
    model = TrainableModel(ToyNet())
    with torch.no_grad():
        model.net.head.bias.fill_(math.inf)
    with pytest.raises(NonFiniteError, match=r"parameter head.bias is not finite"):
        losses_of(model, batch)


def test_bad_points_are_named(batch: Batch) -> None:
    batch.points[3, 1] = math.nan
    with pytest.raises(NonFiniteError, match=r"points of frames frame0, frame1 hold NaN"):
        losses_of(TrainableModel(ToyNet()), batch)


def test_the_check_can_be_left_out(batch: Batch) -> None:
    batch.points[3, 1] = math.nan
    losses_of(TrainableModel(ToyNet(), finite_check=False), batch)


def test_floats_looks_into_values() -> None:
    found = Detections(Boxes3D.empty(), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert len(list(floats([{"a": torch.zeros(1)}, (torch.zeros(1, dtype=torch.int64),)]))) == 1
    assert len(list(floats(found))) == 2  # boxes and scores, not labels


def test_predictions_name_their_frames(batch: Batch) -> None:
    model = TrainableModel(ToyNet()).eval()
    outputs = model(batch, mode="predict")
    assert [output["token"] for output in outputs] == ["frame0", "frame1"]
    assert isinstance(outputs[0]["detections"], Detections)
    assert outputs[0]["augmentation"].shape == (4, 4)


def test_unknown_modes_are_refused(batch: Batch) -> None:
    with pytest.raises(ValueError, match="mode must be 'loss', 'predict' or 'tensor', got 'x'"):
        TrainableModel(ToyNet())(batch, mode="x")
