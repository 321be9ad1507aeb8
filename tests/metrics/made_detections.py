"""Made-up detections, and their way through NuScenesMetric."""

import torch

from perception3d.metrics.nuscenes import NuScenesMetric
from perception3d.structures import Boxes3D, Detections


def entry(sample, detections):
    """Return what TrainableModel predicts for a frame."""
    return {
        "token": sample.token,
        "detections": detections,
        "lidar_to_global": sample.lidar_to_global,
        "augmentation": sample.augmentation,
    }


def noisy(sample, seed=0, noise=0.3):
    """Return the true boxes moved about, with velocities and scores made up, plus some others."""
    generator = torch.Generator().manual_seed(seed)
    tensor = sample.targets.boxes.tensor.clone()
    labels = sample.targets.labels
    tensor = torch.cat([tensor, tensor[:3] + torch.tensor([0, 5.0, 0, 0, 0, 0, 1, 0, 0])])
    labels = torch.cat([labels, labels[:3]])
    tensor[:, :2] += noise * torch.randn(len(tensor), 2, generator=generator)
    tensor[:, 6] += noise * torch.randn(len(tensor), generator=generator)
    tensor[:, 7:] = torch.randn(len(tensor), 2, generator=generator) * 3
    return Detections(Boxes3D(tensor), torch.rand(len(tensor), generator=generator), labels)


def evaluate(dataset, entries, **options):
    metric = NuScenesMetric(**options)
    metric.dataset_meta = dataset.metainfo
    for item in entries:
        metric.process(None, [item])
    return metric.evaluate(len(entries)), metric
