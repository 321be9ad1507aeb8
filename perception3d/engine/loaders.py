"""Data loaders whose order is a function of (seed, epoch), whatever the number of processes."""

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from perception3d.engine.build import build, resolve
from perception3d.engine.distributed import rank, world_size
from perception3d.errors import UserError, unknown


class TrainBatches(Sampler[list[int]]):
    """Batches of one epoch: this process's share of one global order.

    The order of an epoch depends on (seed, epoch) alone.  Step k takes the next
    `processes * batch_size` indices of it, and process r the r-th part of those, so that two
    processes of batch b see, step by step, what one process of batch 2 b sees.

    Args:
        size: number of samples.
        batch_size: samples per process and step.
        shuffle: a new order each epoch; otherwise ascending.
        seed: seed of the order.
        drop_last: leave out the incomplete last step; otherwise it is filled from the start of
            the order.
        process: number of this process.
        processes: number of processes.

    Raises:
        UserError: no samples, or none left after `drop_last`.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        step = batch_size * processes
        self.steps = size // step if drop_last else -(-size // step)
        if self.steps == 0:
            raise UserError(
                f"train_dataloader: {size} frames do not fill one step of {processes} x "
                f"{batch_size}; lower batch_size, or set drop_last=False"
            )
        self.size = size
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.process = process
        self.processes = processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.arange(self.size)
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
            order = torch.randperm(self.size, generator=generator)
        step = self.batch_size * self.processes
        order = order.repeat(-(-self.steps * step // self.size))[: self.steps * step]
        shares = order.view(self.steps, self.processes, self.batch_size)[:, self.process]
        return iter(shares.tolist())

    def __len__(self) -> int:
        return self.steps


class TestBatches(Sampler[list[int]]):
    """Every sample once, ascending; process r takes r, r + n, r + 2 n, ... of n processes.

    All processes get equally many samples (the last ones repeat the first), as mmengine's
    collection of results requires; it drops the surplus.

    Args:
        size: number of samples.
        batch_size: samples per process and step.
        process: number of this process.
        processes: number of processes.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    def __init__(self, size: int, batch_size: int, process: int = 0, processes: int = 1) -> None:
        each = -(-size // processes)
        self.indices = [i % size for i in range(process, each * processes, processes)]
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield self.indices[start : start + self.batch_size]

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)


def mix(*numbers: int) -> int:
    """Hash numbers into one seed below 2^63 (splitmix64), so that streams do not overlap."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


LOADER_KEYS = ("dataset", "batch_size", "num_workers", "shuffle", "drop_last", "collate_fn")


def build_loader(
    config: dict[str, Any], section: str, *, seed: int, train: bool, pin_memory: bool = False
) -> DataLoader[Any]:
    """Build the data set of a config section and its loader.

    Args:
        config: dataset=dict(type=...), batch_size, num_workers, collate_fn (default: ours), and
            for training shuffle and drop_last.
        section: name of the section, for messages.
        seed: seed of order and augmentation; handed to data sets that have `set_seed`.
        train: training order (`TrainBatches`) or every frame once (`TestBatches`).
        pin_memory: put batches into pinned memory.

    Raises:
        UserError: a wrong key or value, or an empty data set.
    """
    for key in config:
        if key not in LOADER_KEYS:
            raise UserError(f"{section}: {unknown(key, LOADER_KEYS, 'key')}")
    if "dataset" not in config:
        raise UserError(f"{section}: missing dataset=dict(type=...)")
    dataset = build(config["dataset"], path=f"{section}.dataset")
    if hasattr(dataset, "full_init"):
        dataset.full_init()
    if hasattr(dataset, "set_seed"):
        dataset.set_seed(seed)
    batch_size = config.get("batch_size", 1)
    workers = config.get("num_workers", 0)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(f"{section}.batch_size must be a whole number >= 1, got {batch_size!r}")
    if not isinstance(workers, int) or workers < 0:
        raise UserError(f"{section}.num_workers must be a whole number >= 0, got {workers!r}")
    size = _size(dataset, section)
    batches: Sampler[list[int]]
    if train:
        batches = TrainBatches(
            size,
            batch_size,
            shuffle=config.get("shuffle", True),
            seed=seed,
            drop_last=config.get("drop_last", False),
            process=rank(),
            processes=world_size(),
        )
    else:
        batches = TestBatches(size, batch_size, rank(), world_size())
    # Workers are started anew each epoch: they must see the data set's epoch.  The loader has a
    # generator of its own, so that iterating it leaves the model's random stream alone.
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate(config.get("collate_fn")),
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(mix(seed, rank())),
    )


def _size(dataset: Dataset[Any], section: str) -> int:
    if not isinstance(dataset, Sized):
        raise UserError(f"{section}.dataset: {type(dataset).__name__} has no length")
    if len(dataset) == 0:
        raise UserError(f"{section}.dataset: holds no frame; check its info file and filters")
    return len(dataset)


def _collate(config: Any) -> Any:
    if config is None:
        from perception3d.data.collate import collate

        return collate
    return resolve(config, "collate_fn")
