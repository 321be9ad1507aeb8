"""What changes with the epoch and the step: random streams, augmentation, learning rate."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook

from perception3d.engine.loaders import mix


class EpochHook(Hook):  # type: ignore[misc]  # mmengine ships no types
    """Start the random streams of each epoch anew.

    Data order, augmentation and dropout become functions of (seed, epoch, process): a run that
    was interrupted needs no stored generator state to go on as if nothing had happened, and
    validation in between changes nothing.

    Args:
        seed: seed of the run.
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_epoch(self, runner: Any) -> None:
        """Seed torch, numpy and random; tell the loader and the data set the epoch."""
        stream = mix(self.seed, runner.epoch, runner.rank)
        random.seed(stream)
        np.random.seed(stream % 2**32)  # noqa: NPY002  # third-party code draws from it
        torch.manual_seed(stream)
        loader = runner.train_dataloader
        loader.batch_sampler.set_epoch(runner.epoch)
        if hasattr(loader.dataset, "set_epoch"):
            loader.dataset.set_epoch(runner.epoch)


class FadeHook(Hook):  # type: ignore[misc]  # mmengine ships no types
    """Leave transforms out in the last epochs, so that training ends on real data.

    Args:
        last_epochs: for how many epochs.
        transforms: class names, e.g. ("ObjectPaste",), found in the data set's
            pipeline.
    """

    def __init__(self, last_epochs: int, transforms: tuple[str, ...] | list[str]) -> None:
        if last_epochs < 1:
            raise ValueError(f"last_epochs must be >= 1, got {last_epochs}")
        if not transforms:
            raise ValueError("transforms must name at least one class, got none")
        self.last_epochs = last_epochs
        self.names = tuple(transforms)

    def before_train(self, runner: Any) -> None:
        """Check the names before hours of training pass.

        Raises:
            ValueError: no transform of that name, or no pipeline.
        """
        present = {type(step).__name__ for step in _pipeline(runner.train_dataloader).transforms}
        for name in self.names:
            if name not in present:
                raise ValueError(
                    f"FadeHook: no transform {name!r} in the training pipeline, "
                    f"there are {', '.join(sorted(present))}"
                )

    def before_train_epoch(self, runner: Any) -> None:
        """Take the transforms out once the last epochs begin."""
        if runner.epoch >= runner.max_epochs - self.last_epochs:
            pipeline = _pipeline(runner.train_dataloader)
            kept = [s for s in pipeline.transforms if type(s).__name__ not in self.names]
            pipeline.transforms = kept


def _pipeline(loader: Any) -> Any:
    dataset = loader.dataset
    while not hasattr(dataset, "pipeline") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset  # resampling wrappers
    if not hasattr(dataset, "pipeline"):
        raise ValueError(f"FadeHook: {type(dataset).__name__} has no pipeline")
    return dataset.pipeline


class ScheduleHook(Hook):  # type: ignore[misc]  # mmengine ships no types
    """Set learning rate and beta1 before each step, from the step number alone.

    Args:
        schedule: (step, total steps) -> (factor on the peak rate, beta1 or None), e.g.
            `perception3d.engine.optim.OneCycle`.
    """

    priority = "HIGH"

    def __init__(self, schedule: Callable[[int, int], tuple[float, float | None]]) -> None:
        self.schedule = schedule

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set the rates of all parameter groups."""
        factor, beta1 = self.schedule(runner.iter, runner.max_iters)
        for group in runner.optim_wrapper.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
            if beta1 is None:
                continue
            if "betas" in group:
                group["betas"] = (beta1, group["betas"][1])
            elif "momentum" in group:
                group["momentum"] = beta1
