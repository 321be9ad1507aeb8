"""From a config and the command line to a runner: nothing is computed here."""

import contextlib
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from torch import nn

from perception3d.engine import distributed
from perception3d.engine.build import build
from perception3d.engine.check_config import check_config
from perception3d.engine.check_data import check_data
from perception3d.engine.checkpoint_file import LAST, check_fit, read_checkpoint
from perception3d.engine.config import fingerprint, plain
from perception3d.engine.hooks import (
    CheckpointHook,
    EpochHook,
    LogHook,
    MemoryHook,
    ScheduleHook,
)
from perception3d.engine.inference import class_names
from perception3d.engine.loaders import build_loader
from perception3d.engine.optim import Constant, build_optim
from perception3d.engine.options import RunOptions
from perception3d.engine.runner import ExactRunner
from perception3d.engine.writers import ConsoleWriter, JsonLinesWriter, TensorBoardWriter, Writer
from perception3d.errors import UserError

_run_number = itertools.count()


def build_runner(config: Config, options: RunOptions, *, train: bool) -> ExactRunner:
    """Build the runner of a config, for training (with validation) or for testing.

    Args:
        config: from `perception3d.engine.config.load_config`.
        options: what the command line adds.
        train: training, or testing.

    Raises:
        UserError: anything wrong with the config, the checkpoint or the device.
    """
    sections = plain(config)
    for problem in check_config(sections):
        raise UserError(problem)
    launcher = distributed.choose_launcher(options.launcher)
    device = distributed.choose_device(options.device, launcher)
    work_dir = Path(options.work_dir or sections.get("work_dir") or _default_work_dir(config))
    resume_from = _find_state(options.resume, work_dir) if train else None
    seed, deterministic = _randomness(sections, options, resume_from)
    distributed.start_processes(launcher, device)
    _seed_everything(seed, deterministic)
    if "model" not in sections:
        raise UserError(f"{config.filename}: has no section 'model'")
    model = build(sections["model"], path="model")
    load_from = options.load_from or sections.get("load_from")
    _check_weights(model, load_from, resume_from)
    _tame_spconv(device)
    model.to(device)  # the optimiser is built on the parameters where they stay

    arguments: dict[str, Any] = {}
    hooks: list[Hook] = []
    if train:
        arguments, hooks = _training_parts(sections, options, model, seed, device)
    elif "test_dataloader" in sections:
        loader = _evaluation_loader(sections, "test", seed, device)
        check_data(loader.dataset, model, _classes(sections), "test_dataloader")
        arguments = {
            "test_dataloader": loader,
            "test_cfg": {},
            "test_evaluator": _evaluator(sections, "test"),
        }
    else:
        raise UserError(f"{config.filename}: has no section 'test_dataloader'")

    runner = ExactRunner(
        model,
        device=device,
        config_hash=fingerprint(config),
        resume_from=resume_from,
        sync_bn=bool(sections.get("sync_bn", True)),
        work_dir=str(work_dir),
        cfg=config,
        load_from=load_from,
        launcher=launcher,
        randomness={"seed": seed, "deterministic": deterministic},
        experiment_name=f"{work_dir.name}_{next(_run_number)}",
        env_cfg={},
        **arguments,
    )
    hooks += [MemoryHook(), *build(sections.get("custom_hooks", []), path="custom_hooks")]
    runner.log_hook = _log_hook(sections, work_dir, options.quiet)
    hooks.append(runner.log_hook)
    for hook in hooks:
        runner.register_hook(hook)
    return runner


def _training_parts(
    sections: dict[str, Any],
    options: RunOptions,
    model: nn.Module,
    seed: int,
    device: torch.device,
) -> tuple[dict[str, Any], list[Hook]]:
    """Build loaders, optimiser, evaluator and the hooks of training."""
    for name in ("train_dataloader", "optim_wrapper", "train_cfg"):
        if name not in sections:
            raise UserError(f"config: has no section {name!r}")
    epochs = sections["train_cfg"].get("max_epochs")
    if not isinstance(epochs, int) or epochs < 1:
        raise UserError(f"train_cfg.max_epochs must be a whole number >= 1, got {epochs!r}")
    pin = device.type == "cuda"
    train_loader = build_loader(
        sections["train_dataloader"], "train_dataloader", seed=seed, train=True, pin_memory=pin
    )
    check_data(train_loader.dataset, model, _classes(sections), "train_dataloader")
    factor = 1.0
    if options.auto_scale_lr:
        base = (sections.get("auto_scale_lr") or {}).get("base_batch_size")
        if base is None:
            raise UserError(
                "--auto-scale-lr: the config does not say for which global batch its learning "
                "rate is meant; add auto_scale_lr = dict(base_batch_size=N)"
            )
        sampler: Any = train_loader.batch_sampler
        factor = sampler.batch_size * distributed.world_size() / base
    arguments: dict[str, Any] = {
        "train_dataloader": train_loader,
        "train_cfg": {"by_epoch": True, **sections["train_cfg"]},
        "optim_wrapper": build_optim(sections["optim_wrapper"], model, options.amp, factor),
    }
    if sections.get("val_dataloader"):
        arguments["val_dataloader"] = _evaluation_loader(sections, "val", seed, device)
        arguments["val_cfg"] = {}
        arguments["val_evaluator"] = _evaluator(sections, "val")
    schedule = sections.get("param_scheduler") or {"type": Constant}
    hooks: list[Hook] = [
        EpochHook(seed),
        ScheduleHook(build(schedule, path="param_scheduler")),
        build({"type": CheckpointHook, **sections.get("checkpoint", {})}, path="checkpoint"),
    ]
    return arguments, hooks


def _check_weights(
    model: nn.Module, load_from: str | None, resume_from: tuple[Path, dict[str, Any]] | None
) -> None:
    """Refuse weights of another model before the runner writes into the work folder."""
    if resume_from is not None:
        path, state = resume_from
        check_fit(model, state, path)
    elif load_from is not None:
        check_fit(model, read_checkpoint(load_from), load_from)


def _classes(sections: dict[str, Any]) -> tuple[str, ...] | None:
    return class_names({"model": sections["model"]})


def _evaluation_loader(
    sections: dict[str, Any], phase: str, seed: int, device: torch.device
) -> Any:
    name = f"{phase}_dataloader"
    pin = device.type == "cuda"
    return build_loader(sections[name], name, seed=seed, train=False, pin_memory=pin)


def _evaluator(sections: dict[str, Any], phase: str) -> Evaluator:
    name = f"{phase}_evaluator"
    if not sections.get(name):
        raise UserError(f"config: {phase}_dataloader needs a section {name!r}")
    metrics = build(sections[name], path=name)
    return Evaluator(metrics if isinstance(metrics, Sequence) else [metrics])


def _log_hook(sections: dict[str, Any], work_dir: Path, quiet: bool) -> LogHook:
    writers: list[Writer] = []
    if distributed.rank() == 0:
        writers = [JsonLinesWriter(work_dir / "log.jsonl")]
        if not quiet:
            writers.append(ConsoleWriter())
        with contextlib.suppress(ImportError):  # not installed: the JSON lines hold the same
            writers.append(TensorBoardWriter(work_dir / "tensorboard"))
    return build(  # type: ignore[no-any-return]  # the type is given here
        {"type": LogHook, **sections.get("logging", {})}, writers, path="logging"
    )


def _default_work_dir(config: Config) -> Path:
    return Path("work_dirs") / Path(config.filename or "config").stem


def _find_state(resume: str | None, work_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """Read the checkpoint to continue; "auto" finds the last one of the work folder."""
    if resume is None:
        return None
    path = work_dir / LAST if resume == "auto" else Path(resume)
    if resume == "auto" and not path.is_file():
        return None
    state = read_checkpoint(path)
    if not {"optimizer", "epoch", "seed", "config_hash"} <= set(state):
        raise UserError(
            f"{path}: holds weights only and cannot be continued; "
            f"use --load-from, or resume from epoch_N.pth"
        )
    return path, state


def _randomness(
    sections: dict[str, Any], options: RunOptions, resume_from: tuple[Path, dict[str, Any]] | None
) -> tuple[int, bool]:
    """Choose the seed: command line, else that of the resumed run, else the config's, else 0."""
    chosen = sections.get("randomness") or {}
    deterministic = options.deterministic or bool(chosen.get("deterministic", False))
    if resume_from is not None:
        path, state = resume_from
        if options.seed is not None and options.seed != state["seed"]:
            raise UserError(
                f"--seed {options.seed}: {path} was trained with seed {state['seed']}; "
                f"leave --seed out to continue it"
            )
        return int(state["seed"]), deterministic
    return int(options.seed if options.seed is not None else chosen.get("seed", 0)), deterministic


def _seed_everything(seed: int, deterministic: bool) -> None:
    """Seed before anything is built: mmengine's Runner would seed after the weights are drawn."""
    from mmengine.runner import set_random_seed

    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    set_random_seed(seed, deterministic=deterministic)


def _tame_spconv(device: torch.device) -> None:
    """Use one thread where spconv computes on the CPU and nobody said otherwise.

    With two OpenMP threads on a busy two-core machine spconv took seconds for what one thread
    does in 40 ms.
    """
    if device.type == "cpu" and "spconv" in sys.modules and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
