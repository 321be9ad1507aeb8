"""What the command line adds to a config."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """What the command line adds to a config; None leaves the config's choice.

    Attributes:
        work_dir: results folder; default work_dirs/CONFIG_NAME in the current folder.
        device: "cpu", "cuda" or "cuda:N".
        launcher: "none", "pytorch" or "slurm"; None: torchrun is noticed.
        seed: seed of weights, order and augmentation.
        deterministic: bit-equal results for equal seeds.
        amp: "bf16" or "fp16".
        resume: "auto" or a checkpoint file; "auto" without a checkpoint starts anew.
        load_from: checkpoint whose weights training or testing starts from.
        auto_scale_lr: multiply the learning rate by global batch / auto_scale_lr.base_batch_size.
        quiet: nothing on the terminal.
    """

    work_dir: str | None = None
    device: str | None = None
    launcher: str | None = None
    seed: int | None = None
    deterministic: bool = False
    amp: str | None = None
    resume: str | None = None
    load_from: str | None = None
    auto_scale_lr: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class TestOptions:
    """What a test does beside computing metrics.

    Attributes:
        checkpoint: file with weights; with `eval_all` a work folder.
        eval_all: test every epoch_N.pth of the folder, in order.
        format_only: write the submission file, compute no metric.
        out: folder for the submission file and metrics.json; None: they are not kept.
        show_dir: folder for pictures; None: none are drawn.
        show_max: at most so many frames are drawn.
        score_threshold: boxes below it are not drawn.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    checkpoint: str
    eval_all: bool = False
    format_only: bool = False
    out: str | None = None
    show_dir: str | None = None
    show_max: int = 20
    score_threshold: float = 0.3
