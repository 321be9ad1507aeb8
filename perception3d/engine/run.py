"""What tools/train.py and tools/test.py do."""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from perception3d.engine import distributed
from perception3d.engine.assemble import build_runner
from perception3d.engine.checkpoint_file import read_checkpoint, write_whole
from perception3d.engine.config import load_config
from perception3d.engine.hooks.drawing import DrawHook
from perception3d.engine.options import RunOptions, TestOptions
from perception3d.engine.writers import finite
from perception3d.errors import UserError


def train(
    config: str | Path,
    config_options: Sequence[str] = (),
    options: RunOptions | None = None,
    dry_run: bool = False,
) -> dict[str, float]:
    """Train a model.

    Args:
        config: config file.
        config_options: `KEY=VALUE` settings.
        options: what the command line adds.
        dry_run: build everything and compute the loss of one batch; nothing is stored.

    Returns:
        Seconds of each phase.
    """
    settings = load_config(config, config_options)
    options = options or RunOptions()
    with distributed.leave_at_end():
        if dry_run:
            with tempfile.TemporaryDirectory() as folder:
                return _dry_run(settings, dataclasses.replace(options, work_dir=folder))
        runner = build_runner(settings, options, train=True)
        runner.train()
        return runner.log_hook.seconds


def _dry_run(settings: Config, options: RunOptions) -> dict[str, float]:
    import torch

    runner = build_runner(settings, options, train=True)
    loader = runner.train_dataloader
    with torch.no_grad():
        losses = runner.model(**next(iter(loader)), mode="loss")
    total, entries = runner.bare_model.parse_losses(losses)  # type: ignore[operator]  # BaseModel
    runner.log_hook.say(
        f"dry run: {len(loader.dataset)} frames, {len(loader)} steps an epoch; "
        + "  ".join(f"{name} {float(value):.4f}" for name, value in entries.items())
    )
    return {}


def evaluate(
    config: str | Path,
    config_options: Sequence[str] = (),
    options: RunOptions | None = None,
    test_options: TestOptions | None = None,
) -> dict[str, dict[str, float]]:
    """Test the weights of one checkpoint, or of all checkpoints of a work folder.

    Args:
        config: config file.
        config_options: `KEY=VALUE` settings.
        options: what the command line adds.
        test_options: checkpoint, submission file, pictures.

    Returns:
        Metrics per checkpoint name.
    """
    if test_options is None:
        raise UserError("test: needs a checkpoint")
    results: dict[str, dict[str, float]] = {}
    with distributed.leave_at_end():
        for path in _checkpoints(test_options):
            read_checkpoint(path)  # a wrong file is told before data are read
            settings = load_config(config, config_options)
            folder = _out_folder(test_options, path)
            _set_output(settings, test_options, folder)
            chosen = dataclasses.replace(options or RunOptions(), load_from=str(path))
            runner = build_runner(settings, chosen, train=False)
            if test_options.show_dir is not None:
                runner.register_hook(
                    DrawHook(
                        test_options.show_dir, test_options.show_max, test_options.score_threshold
                    )
                )
            results[path.name] = runner.test()
            if folder is not None and not test_options.format_only and distributed.rank() == 0:
                document = {"checkpoint": str(path), **figures(results[path.name])}
                text = json.dumps(finite(document), indent=2) + "\n"
                write_whole(folder / "metrics.json", text.encode())
    return results


def figures(metrics: dict[str, float]) -> dict[str, Any]:
    """Arrange metrics for a file: totals by name, and those of a class under "per_class".

    Args:
        metrics: by "prefix/NAME" or "prefix/CLASS/NAME", as mmengine hands them out.

    Returns:
        e.g. {"mAP": 0.5, "per_class": {"car": {"AP": 0.7}}}.
    """
    arranged: dict[str, Any] = {}
    classes: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        parts = name.split("/")
        if len(parts) >= 3:
            classes.setdefault(parts[-2], {})[parts[-1]] = value
        else:
            arranged[parts[-1]] = value
    return {**arranged, "per_class": classes} if classes else arranged


def _checkpoints(options: TestOptions) -> list[Path]:
    path = Path(options.checkpoint)
    if not options.eval_all:
        return [path]
    found = [p for p in path.glob("epoch_*.pth") if p.stem.removeprefix("epoch_").isdigit()]
    if not found:
        raise UserError(f"--eval-all: no epoch_N.pth in {path}; give a work folder")
    return sorted(found, key=lambda p: int(p.stem.removeprefix("epoch_")))


def _out_folder(options: TestOptions, checkpoint: Path) -> Path | None:
    """Make the folder for results; several checkpoints have one each."""
    if options.out is None:
        return None
    folder = Path(options.out) / (checkpoint.stem if options.eval_all else "")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


def _set_output(settings: Config, options: TestOptions, folder: Path | None) -> None:
    """Hand the submission options to the metrics of the test."""
    if options.format_only and folder is None:
        raise UserError("--format-only needs --out DIR, the folder for the submission file")
    changes: dict[str, Any] = {}
    if options.format_only:
        changes["format_only"] = True
    if folder is not None:
        changes["out_dir"] = str(folder)
    if changes:
        evaluator = settings.get("test_evaluator")
        if not isinstance(evaluator, dict):
            raise UserError("--format-only and --out need a single metric in test_evaluator")
        evaluator.update(changes)
