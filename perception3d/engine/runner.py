"""From a config to a run that can be repeated, interrupted and continued."""

import contextlib
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from perception3d import __version__
from perception3d.engine import distributed
from perception3d.engine.build import build
from perception3d.engine.check_config import check_config
from perception3d.engine.checkpoint_file import (
    LAST,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    write_whole,
)
from perception3d.engine.config import fingerprint, plain
from perception3d.engine.hooks import CheckpointHook, EpochHook, LogHook, ScheduleHook
from perception3d.engine.loaders import build_loader
from perception3d.engine.optim import Constant, build_optim
from perception3d.engine.options import RunOptions
from perception3d.engine.writers import ConsoleWriter, JsonLinesWriter, TensorBoardWriter, Writer
from perception3d.errors import UserError
from perception3d.layers.sync_batch_norm import synchronise_norms

_run_number = itertools.count()


class ExactRunner(Runner):  # type: ignore[misc]  # mmengine ships no types
    """mmengine's Runner with checkpoints that load anywhere and runs that continue exactly.

    Differs from its parent: checkpoints hold plain values, are written whole or not at all and
    are read with `weights_only=True`; weights must fit; the device is chosen, not guessed; the
    environment is in the log's first record.

    Args:
        model: built model, on the CPU.
        device: where to compute.
        config_hash: fingerprint of the config.
        resume_from: checkpoint to continue, with its path.
        sync_bn: batch norms see the rows of all processes.
        arguments: those of mmengine's Runner.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: torch.device,
        config_hash: str,
        resume_from: tuple[Path, dict[str, Any]] | None = None,
        sync_bn: bool = True,
        **arguments: Any,
    ) -> None:
        self.device = device
        self.config_hash = config_hash
        self.resume_from = resume_from
        self.sync_bn = sync_bn
        self.training = False
        self.log_hook = LogHook([])
        self._has_loaded = False
        self._config_text: str | None = None
        super().__init__(model=model, **arguments)

    @property
    def timestamp(self) -> str:
        """Name of the folder for mmengine's own log: fixed, so that none is left per start."""
        return "mmengine"

    @property
    def bare_model(self) -> nn.Module:
        """The model without the wrapper of several processes."""
        model: nn.Module = self.model
        return model.module if isinstance(model, distributed.DistributedModel) else model

    @property
    def config_text(self) -> str:
        """The whole config as Python text."""
        if self._config_text is None:
            self._config_text = str(self.cfg.pretty_text)
        return self._config_text

    def build_logger(self, **options: Any) -> MMLogger:
        """Leave the terminal to our own writers; warnings still come through."""
        return super().build_logger(**{**options, "log_level": "WARNING"})

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """Make a visualizer without back ends: records go to our own writers."""
        return super().build_visualizer(
            {"type": "Visualizer", "vis_backends": None} if visualizer is None else visualizer
        )

    def _log_env(self, env_cfg: Any) -> None:
        """Nothing: `LogHook` writes it; mmengine's collection takes seconds."""

    def _init_model_weights(self) -> None:
        """Nothing: our constructors initialise."""

    def register_default_hooks(self, hooks: Any = None) -> None:
        """Nothing: `build_runner` registers all hooks."""

    def dump_config(self) -> None:
        """Write the config into the work folder."""
        if self.rank == 0:
            name = Path(self.cfg.filename or "config.py").name
            write_whole(Path(self.work_dir) / name, self.config_text.encode())

    def wrap_model(self, model_wrapper_cfg: Any, model: nn.Module) -> nn.Module:
        """Move the model to its device; with several processes wrap it."""
        if not self.distributed or self.world_size == 1:
            return model.to(self.device)
        if self.sync_bn and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        elif self.sync_bn:
            model = synchronise_norms(model)
        return distributed.DistributedModel(model.to(self.device), self.device)

    def train(self) -> nn.Module:
        """Train to the last epoch; continue where a checkpoint left off.

        A run that is continued after its last epoch is validated: the interruption may have hit
        the last validation.
        """
        self.training = True
        if self.rank == 0:
            for rest in Path(self.work_dir).glob(".*.tmp"):  # of a killed write
                rest.unlink()
            if self.resume_from is None:
                # A new run must not be continued from the checkpoints of an older one.
                (Path(self.work_dir) / LAST).unlink(missing_ok=True)
        over = self.resume_from is not None and self.resume_from[1]["epoch"] >= self.max_epochs
        model: nn.Module = super().train()
        if over and self.val_loop is not None:
            self.val_loop.run()
        self.training = False
        return model

    def load_or_resume(self) -> None:
        """Load the weights of `load_from`, or the whole state of `resume_from`."""
        if self._has_loaded:
            return
        self._has_loaded = True
        if self.resume_from is None:
            if self._load_from is not None:
                load_weights(self.bare_model, read_checkpoint(self._load_from), self._load_from)
            return
        path, state = self.resume_from
        load_weights(self.bare_model, state, path)
        try:
            self.optim_wrapper.load_state_dict(state["optimizer"])
        except (ValueError, KeyError) as error:
            raise UserError(f"{path}: its optimiser state does not fit: {error}") from error
        if state["config_hash"] != self.config_hash:
            self.log_hook.say(f"the config has changed since {path} was stored")
        self.log_hook.say(f"continue {path} after epoch {state['epoch']}")
        self.train_loop._epoch = state["epoch"]
        self.train_loop._iter = state["epoch"] * len(self.train_dataloader)

    def save_state(self, name: str, *, epoch: int, best_score: float | None = None) -> None:
        """Store all that training needs to go on, in the work folder.

        Args:
            name: file name.
            epoch: finished epochs.
            best_score: best metric so far.
        """
        optimizer = self.optim_wrapper.state_dict()
        self._store(name, epoch=epoch, best_score=best_score, optimizer=optimizer)

    def save_weights(self, name: str, *, epoch: int, score: float | None = None) -> None:
        """Store the weights alone, in the work folder."""
        self._store(name, epoch=epoch, best_score=score)

    def _store(self, name: str, **entries: Any) -> None:
        if self.rank != 0:
            return
        content = {
            "format": 1,
            "state_dict": dict(self.bare_model.state_dict()),
            **entries,
            "seed": self.seed,
            "config_hash": self.config_hash,
            "config": self.config_text,
            "processes": self.world_size,
            "versions": {
                "perception3d": __version__,
                "torch": str(torch.__version__),
                "mmengine": mmengine.__version__,
            },
        }
        save_checkpoint(Path(self.work_dir) / name, _on_cpu(content))

    def save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        """Refuse mmengine's own format: it does not load with `weights_only=True`."""
        raise NotImplementedError("ExactRunner stores checkpoints with save_state")


def _on_cpu(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _on_cpu(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(entry) for entry in value)
    return value.detach().cpu() if torch.is_tensor(value) else value


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
    _tame_spconv(device)
    model.to(device)  # the optimiser is built on the parameters where they stay

    arguments: dict[str, Any] = {}
    hooks: list[Hook] = []
    if train:
        arguments, hooks = _training_parts(sections, options, model, seed, device)
    elif "test_dataloader" in sections:
        loader = _evaluation_loader(sections, "test", seed, device)
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
        load_from=options.load_from or sections.get("load_from"),
        launcher=launcher,
        randomness={"seed": seed, "deterministic": deterministic},
        experiment_name=f"{work_dir.name}_{next(_run_number)}",
        env_cfg={},
        **arguments,
    )
    hooks += build(sections.get("custom_hooks", []), path="custom_hooks")
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
    pin = device.type == "cuda"
    train_loader = build_loader(
        sections["train_dataloader"], "train_dataloader", seed=seed, train=True, pin_memory=pin
    )
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
    if "optimizer" not in state or "epoch" not in state:
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
