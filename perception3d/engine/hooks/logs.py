"""Measure the steps and hand averaged records to the writers."""

import platform
import resource
import time
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from perception3d import __version__
from perception3d.engine.distributed import mean_over_processes
from perception3d.engine.writers import Writer


class LogHook(Hook):  # type: ignore[misc]  # mmengine ships no types
    """Losses, rates, times and memory every few steps; metrics and seconds of each phase.

    Args:
        writers: where records go; none in processes other than the first.
        interval: steps over which the figures of a record are averaged.
    """

    priority = "LOW"

    def __init__(self, writers: Sequence[Writer], interval: int = 20) -> None:
        if interval < 1:
            raise ValueError(f"interval must be >= 1, got {interval}")
        self.writers = list(writers)
        self.interval = interval
        self.seconds: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._data_s = self._step_s = 0.0
        self._start = self._mark = self._phase = time.perf_counter()
        self._train_s = 0.0
        self._first_step = 0

    def _write(self, **record: Any) -> None:
        for writer in self.writers:
            writer.write(record)

    def say(self, text: str) -> None:
        """Write a line of text."""
        self._write(event="text", text=text)

    def before_run(self, runner: Any) -> None:
        """Say what is about to run, and where."""
        model = runner.bare_model
        self._write(
            event="start",
            work_dir=runner.work_dir,
            model=type(model.net).__name__,
            parameters=sum(p.numel() for p in model.parameters()),
            config_hash=runner.config_hash,
            seed=runner.seed,
            deterministic=runner.deterministic,
            device=str(runner.device),
            processes=runner.world_size,
            threads=torch.get_num_threads(),
            perception3d=__version__,
            torch=torch.__version__,
            python=platform.python_version(),
        )

    def before_train(self, runner: Any) -> None:
        """Open the progress of training."""
        self._first_step = runner.iter
        self._start = time.perf_counter()
        for writer in self.writers:
            writer.begin("train", runner.iter, runner.max_iters)

    def before_train_epoch(self, runner: Any) -> None:
        """Start the clock of the first step."""
        self._mark = time.perf_counter()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Take the time that was spent waiting for data."""
        self._data_s += time.perf_counter() - self._mark

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Add up; write a record every `interval` steps."""
        for name, value in outputs.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()
        norm = runner.optim_wrapper.grad_norm
        if norm is not None:
            self._sums["grad_norm"] = self._sums.get("grad_norm", 0.0) + norm
        self._steps += 1
        step = runner.iter + 1
        for writer in self.writers:
            writer.advance()
        now = time.perf_counter()
        self._step_s += now - self._mark
        if step % self.interval == 0 or step == runner.max_iters:
            self._record(runner, step)
        self._mark = time.perf_counter()

    def _record(self, runner: Any, step: int) -> None:
        sums = mean_over_processes([float(value) for value in self._sums.values()])
        means = {n: value / self._steps for n, value in zip(self._sums, sums, strict=True)}
        # over all steps so far: a record may cover few
        self._train_s += self._step_s
        each = self._train_s / max(step - self._first_step, 1)
        self._write(
            event="train",
            epoch=runner.epoch + 1,
            epochs=runner.max_epochs,
            step=step,
            steps=runner.max_iters,
            **{"grad_norm": 0.0, **means},
            lr=float(runner.optim_wrapper.optimizer.param_groups[0]["lr"]),
            step_s=self._step_s / self._steps,
            data_s=self._data_s / self._steps,
            eta_s=each * (runner.max_iters - step),
            memory_mb=_peak_memory_mb(runner.device),
        )
        self._sums, self._steps, self._data_s, self._step_s = {}, 0, 0.0, 0.0

    def after_train_epoch(self, runner: Any) -> None:
        """Add the epoch to the seconds of training."""
        self._add("train", time.perf_counter() - self._start)
        self._start = time.perf_counter()

    def before_val(self, runner: Any) -> None:
        """Open the progress of validation."""
        self._begin("val", len(runner.val_dataloader))

    def before_test(self, runner: Any) -> None:
        """Open the progress of a test."""
        self._begin("test", len(runner.test_dataloader))

    def _begin(self, phase: str, steps: int) -> None:
        self._phase = time.perf_counter()
        for writer in self.writers:
            writer.begin(phase, 0, steps)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance."""
        for writer in self.writers:
            writer.advance()

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance."""
        for writer in self.writers:
            writer.advance()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Write the metrics, and go on with the progress of training."""
        self._metrics(runner, "val", metrics, epoch=runner.epoch)
        if runner.training:
            self._start = time.perf_counter()
            for writer in self.writers:
                writer.begin("train", runner.iter, runner.max_iters)

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Write the metrics."""
        self._metrics(runner, "test", metrics)

    def _metrics(
        self, runner: Any, phase: str, metrics: dict[str, float] | None, **place: int
    ) -> None:
        seconds = time.perf_counter() - self._phase
        self._add(phase, seconds)
        for writer in self.writers:
            writer.end()
        step = runner.iter if runner.training else 0
        self._write(event=phase, step=step, **place, **(metrics or {}), seconds=seconds)

    def after_run(self, runner: Any) -> None:
        """Close the progress; write the seconds of each phase."""
        for writer in self.writers:
            writer.end()
        self._write(event="end", seconds=dict(self.seconds))

    def _add(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds


def _peak_memory_mb(device: torch.device) -> float:
    """Largest memory so far: of the CUDA allocator, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
