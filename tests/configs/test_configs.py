"""Every config of the repository: its names exist, its network is built, the small ones train."""

from pathlib import Path

import pytest
import torch

from perception3d.engine.build import build
from perception3d.engine.check_config import check_config
from perception3d.engine.config import load_config, plain
from perception3d.engine.optim import build_optim
from perception3d.structures import Batch, Boxes3D, Targets

ROOT = Path(__file__).resolve().parents[2] / "configs"
CONFIGS = sorted(p for p in ROOT.rglob("*.py") if "_base_" not in p.parts)
SMALL = ("dsvt_demo.py", "dsvt_nuscenes_frame.py", "scatterformer_demo.py", "voxel_mamba_demo.py")


def frames(sizes: tuple[int, ...]) -> Batch:
    """Frames of random points around the sensor, each with two cars."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(sum(sizes), 5, generator=generator)
    points[:, :2] = points[:, :2] * 80 - 40
    points[:, 2] = points[:, 2] * 3 - 2
    boxes = Boxes3D(
        torch.tensor([[10.0, 5, -1, 4.5, 1.9, 1.6, 0.3, 1, 0], [-20, 8, -1, 4, 2, 1.5, 2, 0, 0]])
    )
    targets = Targets(boxes, torch.zeros(2, dtype=torch.int64), torch.full((2,), 9))
    count = len(sizes)
    return Batch(
        tokens=tuple(f"frame{i}" for i in range(count)),
        points=points,
        frame_of_point=torch.arange(count).repeat_interleave(torch.tensor(sizes)).int(),
        lidar_to_global=torch.eye(4, dtype=torch.float64).repeat(count, 1, 1),
        augmentation=torch.eye(4, dtype=torch.float64).repeat(count, 1, 1),
        targets=(targets,) * count,
    )


def test_there_are_configs() -> None:
    assert {*SMALL, "scatterformer_waymo.py", "voxel_mamba_waymo.py"} <= {
        path.name for path in CONFIGS
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_name_exists_and_the_network_is_built(path: Path) -> None:
    sections = plain(load_config(path))
    assert check_config(sections) == []
    model = build(sections["model"], path="model")
    if "optim_wrapper" in sections:
        build_optim(sections["optim_wrapper"], model)


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_learn_and_predict(name: str) -> None:
    torch.manual_seed(0)
    path = next(path for path in CONFIGS if path.name == name)
    sections = plain(load_config(path, ["model.allow_empty_frames=True"]))
    model = build(sections["model"], path="model")
    optim = build_optim(sections["optim_wrapper"], model)
    batch = frames((900, 0, 500))  # one frame is empty
    losses = [
        float(model.train_step({"batch": batch}, optim_wrapper=optim)["loss"]) for _ in range(4)
    ]
    assert losses[-1] < losses[0]
    with torch.no_grad():
        outputs = model.eval().test_step({"batch": batch})
    assert [output["token"] for output in outputs] == ["frame0", "frame1", "frame2"]
    assert len(outputs[1]["detections"]) == 0


def test_bases_are_not_mixed_up_between_configs() -> None:
    """Updating a base section in one config must not reach another that is read later."""
    demo = ROOT / "dsvt" / "dsvt_demo.py"
    before = plain(load_config(demo))
    load_config(ROOT / "dsvt" / "dsvt_nuscenes_frame.py")
    load_config(ROOT / "scatterformer" / "scatterformer_demo.py")
    load_config(ROOT / "voxel_mamba" / "voxel_mamba_demo.py")
    assert plain(load_config(demo)) == before
