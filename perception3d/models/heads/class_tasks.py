"""Which task of a multi-task head predicts which class."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassTasks:
    """Classes in label order, and the tasks that share them out.

    Attributes:
        classes: class names; the label of a class is its place here.
        tasks: class names of each task, in channel order; every class in exactly one task.

    Raises:
        ValueError: an unknown name (with the closest known one), a class twice or in no task.
    """

    classes: Sequence[str]
    tasks: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        names = [name for task in self.tasks for name in task]
        for name in names:
            if name not in self.classes:
                near = get_close_matches(name, list(self.classes), 1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise ValueError(
                    f"tasks name the unknown class {name!r}{hint}; classes: {list(self.classes)}"
                )
        if len(set(self.classes)) != len(self.classes) or sorted(names) != sorted(self.classes):
            odd = sorted(name for name in self.classes if names.count(name) != 1)
            raise ValueError(f"every class must be in exactly one task, but these are not: {odd}")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def labels(self, task: int, device: torch.device) -> Tensor:
        """Return the label (K,) int64 of each channel of a task."""
        places = [self.classes.index(name) for name in self.tasks[task]]
        return torch.tensor(places, dtype=torch.int64, device=device)

    def first_channels(self) -> list[int]:
        """Return where each task's channels start if those of all tasks are laid side by side."""
        starts = [0]
        for task in self.tasks[:-1]:
            starts.append(starts[-1] + len(task))
        return starts

    def task_and_channel(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the task and the channel in it of every label, two (C,) int64."""
        places = {
            name: (number, channel)
            for number, task in enumerate(self.tasks)
            for channel, name in enumerate(task)
        }
        table = torch.tensor([places[name] for name in self.classes], device=device)
        return table[:, 0], table[:, 1]
