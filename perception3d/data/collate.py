"""Samples -> Batch."""

from collections.abc import Sequence

import torch

from perception3d.structures import Batch, Sample


def collate(samples: Sequence[Sample]) -> dict[str, Batch]:
    """Join samples into the batch that mmengine's runner carries.

    Args:
        samples: at least one; points with equally many columns.

    Returns:
        {"batch": Batch}; targets and cameras are None where any sample has none.

    Raises:
        ValueError: no samples, or point columns that differ.
    """
    if not samples:
        raise ValueError("collate: samples must not be empty")
    columns = {sample.points.shape[1] for sample in samples}
    if len(columns) > 1:
        raise ValueError(f"collate: points must have equally many columns, got {sorted(columns)}")
    sizes = torch.tensor([sample.points.shape[0] for sample in samples])
    targets = tuple(sample.targets for sample in samples if sample.targets is not None)
    cameras = tuple(sample.cameras for sample in samples if sample.cameras is not None)
    batch = Batch(
        tokens=tuple(sample.token for sample in samples),
        points=torch.cat([sample.points for sample in samples]),
        frame_of_point=torch.repeat_interleave(torch.arange(len(samples)), sizes).int(),
        lidar_to_global=torch.stack([sample.lidar_to_global for sample in samples]),
        augmentation=torch.stack([sample.augmentation for sample in samples]),
        targets=targets if len(targets) == len(samples) else None,
        cameras=cameras if len(cameras) == len(samples) else None,
    )
    return {"batch": batch}
