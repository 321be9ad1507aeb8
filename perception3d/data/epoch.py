"""The random stream of a frame: made from (seed, epoch, index), never from history."""

import numpy as np
import torch


class EpochClock:
    """Seed and epoch of a data set, in memory that loader processes share.

    Persistent workers hold a copy of the data set that is never sent again; only what lies in
    shared memory reaches them.
    """

    def __init__(self, seed: int = 0) -> None:
        self._state = torch.tensor([seed, 0], dtype=torch.int64)
        self._state.share_memory_()  # type: ignore[no-untyped-call]  # torch lacks its type

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self._state[0])

    @property
    def epoch(self) -> int:
        """Epoch, 0-based."""
        return int(self._state[1])

    def set_seed(self, seed: int) -> None:
        """Tell the seed, in every process."""
        self._state[0] = seed

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch, in every process."""
        self._state[1] = epoch

    def generator(self, index: int) -> np.random.Generator:
        """Return a generator that depends on seed, epoch and index alone."""
        return np.random.default_rng([self.seed, self.epoch, index])
