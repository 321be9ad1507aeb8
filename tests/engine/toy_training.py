"""A data set, network and metric small enough to train in a second, with all that can go wrong:
batch norm, dropout, random augmentation, an evaluator."""

import os
import signal
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from torch import Tensor, nn

from perception3d.structures import Batch, Boxes3D, Detections, Sample


class ToyDataset:
    """Clouds whose mean height is the thing to be learnt; noise depends on (epoch, index)."""

    def __init__(self, size: int = 12, noise: float = 0.1) -> None:
        self.size = size
        self.noise = noise
        self.epoch = 0
        self.seed = 0
        self.metainfo = {"classes": ("car",)}

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def set_seed(self, seed: int) -> None:
        self.seed = seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        points = rng.normal(size=(20 + index, 5)) * self.noise
        points[:, 2] += index / self.size
        return Sample(
            token=f"frame{index}",
            points=torch.from_numpy(points).float(),
            lidar_to_global=torch.eye(4, dtype=torch.float64),
        )


class Backbone(nn.Module):
    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        # no bias: before a norm its gradient is rounding noise, which Adam blows up
        self.inner = nn.Linear(5, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, points: Tensor) -> Tensor:
        return self.dropout(torch.relu(self.norm(self.inner(points))))

    def frozen_parameters(self) -> list[nn.Parameter]:
        return [self.inner.weight]


class ToyNet(nn.Module):
    """Points -> mean feature of the frame -> height."""

    def __init__(self, channels: int = 8, dropout: float = 0.2, poison_at: int = -1) -> None:
        super().__init__()
        self.backbone = Backbone(channels, dropout)
        self.head = nn.Linear(channels, 1)
        self.poison_at = poison_at
        self.calls = 0

    def forward(self, batch: Batch) -> Tensor:
        features = self.backbone(batch.points)
        if self.calls == self.poison_at:
            features = features / 0.0
        index = batch.frame_of_point.long()
        sums = features.new_zeros(batch.batch_size, features.shape[1]).index_add(0, index, features)
        counts = torch.bincount(index, minlength=batch.batch_size).clamp(min=1)
        return self.head(sums / counts[:, None])[:, 0]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        heights = [int(token.removeprefix("frame")) / 12 for token in batch.tokens]
        error = self(batch) - batch.points.new_tensor(heights)
        losses = {"loss_height": error.square().mean(), "shown": error.new_ones(())}
        self.calls += 1
        return losses

    def predict(self, batch: Batch) -> list[Detections]:
        boxes = torch.zeros((batch.batch_size, 1, 9))
        boxes[:, 0, 2] = self(batch).float().cpu()
        return [
            Detections(Boxes3D(box), torch.ones(1), torch.zeros(1, dtype=torch.int64))
            for box in boxes  # on the CPU, wherever the network is
        ]


class ToyMetric(BaseMetric):
    """Error of the height, and how many frames came."""

    default_prefix = "toy"

    def __init__(self, out_dir: str | None = None, format_only: bool = False) -> None:
        super().__init__()
        self.out_dir = out_dir

    def process(self, data_batch: Any, data_samples: Any) -> None:
        for sample in data_samples:
            height = float(sample["detections"].boxes.tensor[0, 2])
            self.results.append((sample["token"], height))

    def compute_metrics(self, results: list[tuple[str, float]]) -> dict[str, float]:
        errors = [abs(height - int(token[5:]) / 12) for token, height in results]
        assert len({token for token, _ in results}) == len(results), "a frame came twice"
        return {"score": 1.0 - float(np.mean(errors)), "frames": float(len(results))}


class KillHook(Hook):
    """Kill the process, as the kernel would, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_train_iter(self, runner: Any, *arguments: Any, **options: Any) -> None:
        if runner.iter + 1 == self.step:
            os.kill(os.getpid(), signal.SIGKILL)
