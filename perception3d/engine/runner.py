"""A run that can be repeated, interrupted and continued."""

from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from perception3d import __version__
from perception3d.engine import distributed
from perception3d.engine.checkpoint_file import (
    LAST,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    write_whole,
)
from perception3d.engine.hooks import LogHook
from perception3d.errors import UserError
from perception3d.layers.sync_batch_norm import synchronise_norms


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
        """Name of mmengine's own folder inside the work folder: none, it would stay empty."""
        return ""

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
        """Leave terminal and files to our own writers; warnings still come through."""
        return MMLogger.get_instance(name=self.experiment_name, log_level="WARNING")

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
            raise UserError(
                f"{path}: its optimiser state does not fit ({error}); --load-from takes the "
                "weights alone"
            ) from error
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
