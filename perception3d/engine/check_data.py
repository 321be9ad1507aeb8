"""A look at the data before hours of work: do they have the model's classes and range?"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perception3d.errors import UserError
from perception3d.structures import Sample


def check_data(dataset: Any, model: nn.Module, classes: Sequence[str] | None, section: str) -> None:
    """Refuse a data set that the network cannot learn from or be judged on.

    Args:
        dataset: gives Samples by index; `metainfo["classes"]` names its classes.
        model: its `net` may have a `voxelizer.point_cloud_range`; otherwise that is not checked.
        classes: those of the model's config; None where it names none.
        section: config section of the data set, for messages.

    Raises:
        UserError: other classes, or no point of the first frame in the range.
    """
    net = getattr(model, "net", model)
    _check_classes(dataset, classes, section)
    limits = getattr(getattr(net, "voxelizer", None), "point_cloud_range", None)
    if limits is not None:
        _check_first_frame(dataset, limits, section)


def _check_classes(dataset: Any, classes: Sequence[str] | None, section: str) -> None:
    metainfo = getattr(dataset, "metainfo", None) or {}
    known = metainfo.get("classes")
    if classes is None or known is None or tuple(classes) == tuple(known):
        return
    raise UserError(
        f"{section}: the data set's classes are {', '.join(known)}, those of the model "
        f"{', '.join(classes)}; write the same list, in the same order, into both"
    )


def _check_first_frame(dataset: Any, limits: Sequence[float], section: str) -> None:
    """Refuse a first frame without a point in the range, before anything is computed."""
    sample = dataset[0]
    if isinstance(sample, Sample):
        frame = torch.zeros(len(sample.points), dtype=torch.int32)
        check_range(sample.points, frame, (sample.token,), limits, f"{section}: ")


def check_range(
    points: Tensor,
    frame_of_point: Tensor,
    tokens: Sequence[str],
    limits: Sequence[float],
    prefix: str = "",
    advice: str = "",
) -> None:
    """Refuse frames without a point in the range.

    They tell of wrong units, a wrong origin, a wrong point_cloud_range, or a sensor that was off.

    Args:
        points: (P, >= 3) x, y, z in m; on the CPU, or the device waits.
        frame_of_point: (P,) int32.
        tokens: names of the frames.
        limits: x, y, z lower, then x, y, z upper bounds, m.
        prefix: start of the message.
        advice: end of the message: how to go on all the same.

    Raises:
        UserError: the first such frame.
    """
    low, high = points.new_tensor(limits).view(2, 3)
    xyz = points[:, :3]
    inside = ((xyz >= low) & (xyz < high)).all(dim=1)
    counts = torch.bincount(frame_of_point[inside], minlength=len(tokens))
    if bool(counts.all()):
        return
    frame = int(counts.eq(0).nonzero()[0])
    xyz = xyz[frame_of_point == frame]
    spans = "is empty after its pipeline"
    if len(xyz):
        bounds = zip("xyz", xyz.amin(0).tolist(), xyz.amax(0).tolist(), strict=True)
        spans = "spans " + ", ".join(f"{axis} {a:.4g}..{b:.4g}" for axis, a, b in bounds)
    ranges = ", ".join(
        f"{axis} {a:g}..{b:g}"
        for axis, a, b in zip("xyz", low.tolist(), high.tolist(), strict=True)
    )
    raise UserError(
        f"{prefix}frame {tokens[frame]} has no point in the model's range {ranges} m; the cloud "
        f"{spans}: check units, sensor origin and point_cloud_range{advice}"
    )
