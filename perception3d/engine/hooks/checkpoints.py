"""When checkpoints are stored, and which are kept."""

from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from perception3d.engine.checkpoint_file import link_as_last, read_checkpoint

BEST = "best.pth"


class CheckpointHook(Hook):  # type: ignore[misc]  # mmengine ships no types
    """Store a checkpoint every few epochs and at the end; keep the best by a metric.

    Files: `epoch_N.pth` with optimiser state, `best.pth` with weights only, and `last.pth`,
    which is the newest `epoch_N.pth`.

    Args:
        interval: epochs between checkpoints.
        keep: how many `epoch_N.pth` stay; 0: all.
        best: metric to maximise, e.g. "NDS"; None: no `best.pth`. A name without a slash also
            finds "prefix/name".
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int = 1, keep: int = 3, best: str | None = None) -> None:
        if interval < 1 or keep < 0:
            raise ValueError(f"interval must be >= 1 and keep >= 0, got {interval} and {keep}")
        self.interval = interval
        self.keep = keep
        self.best = best
        self.best_score: float | None = None

    def before_train(self, runner: Any) -> None:
        """Go on with the best score of the run that is continued."""
        path = Path(runner.work_dir) / BEST
        if self.best is None or runner.resume_from is None:
            return
        self.best_score = runner.resume_from[1].get("best_score")
        if path.is_file():  # written after the checkpoint, before the interruption
            score = read_checkpoint(path).get("best_score")
            known = [s for s in (score, self.best_score) if s is not None]
            self.best_score = max(known) if known else None

    def after_train_epoch(self, runner: Any) -> None:
        """Store the state, note it as the last, remove what is too old."""
        epoch = runner.epoch + 1  # mmengine counts up after this hook
        if epoch % self.interval and epoch != runner.max_epochs:
            return
        runner.save_state(f"epoch_{epoch}.pth", epoch=epoch, best_score=self.best_score)
        if runner.rank != 0:
            return
        folder = Path(runner.work_dir)
        link_as_last(folder / f"epoch_{epoch}.pth")
        if self.keep:
            for path in sorted(folder.glob("epoch_*.pth"), key=_epoch_of)[: -self.keep]:
                if _epoch_of(path) < epoch:
                    path.unlink()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Store the weights if the metric is the best so far.

        Raises:
            ValueError: the evaluation gave no such metric.
        """
        if self.best is None:
            return
        found = {
            name: value
            for name, value in (metrics or {}).items()
            if name == self.best or name.rpartition("/")[2] == self.best
        }
        if not found:
            raise ValueError(
                f"checkpoint.best: no metric {self.best!r}, got {', '.join(metrics or {})}"
            )
        score = float(next(iter(found.values())))
        if self.best_score is None or score > self.best_score:
            self.best_score = score
            runner.save_weights(BEST, epoch=runner.epoch, score=score)


def _epoch_of(path: Path) -> int:
    number = path.stem.removeprefix("epoch_")
    return int(number) if number.isdigit() else -1
