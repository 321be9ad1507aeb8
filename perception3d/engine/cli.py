"""Habits that all command-line programs share: options, errors, exit codes.

Nothing heavy is imported here: torch and mmengine are loaded after the arguments are parsed, so
that `--help` and a misspelt option answer at once.

Exit codes: 0 done, 1 failure (one line on stderr), 2 wrong usage, 130 interrupted.
"""

import argparse
import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from perception3d.errors import UserError

Main = Callable[[argparse.Namespace], None]
Options = TypeVar("Options")


def run(
    main: Main,
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
    *,
    measures: bool = False,
) -> NoReturn:
    """Parse the arguments, call `main`, and end the process with the right exit code.

    A failure prints one line on stderr; `--debug` prints the traceback before it.

    Args:
        main: the program; gets the parsed arguments.
        parser: its options; `--debug` is added.
        argv: arguments, default those of the process.
        measures: times things, and so leaves the threads of others as their users find them.
    """
    # Idle OpenMP threads spin by default: on a busy machine that more than doubles the CPU time,
    # of torch as of spconv. The runtime reads this when torch is loaded, which is later.
    if not measures:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    arguments = parser.parse_args(argv)
    try:
        with warnings.catch_warnings():
            if not arguments.debug:
                warnings.showwarning = _show_warning
            main(arguments)
    except KeyboardInterrupt:
        _leave(130)
    except Exception as error:
        if arguments.debug:
            import traceback

            traceback.print_exc()
        sys.stderr.write(f"error: {_one_line(error)}\n")
        _leave(1)
    _leave(0)


def _leave(code: int) -> NoReturn:
    """End the process.

    One of several (started by torchrun or slurm) ends at once: threads of torch's process group
    outlive its end, and now and then abort a process whose interpreter shuts down in order
    ("terminate called without an active exception", about one start in ten on a busy machine).
    """
    if "RANK" in os.environ and "torch.distributed" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _show_warning(message: Warning | str, *place: Any, **options: Any) -> None:
    """Write a warning in one line; the place in the code (`--debug`) helps no user."""
    sys.stderr.write(f"warning: {' '.join(str(message).split())}\n")


def _one_line(error: Exception) -> str:
    """Say what happened: our own errors as they are, any other with its type."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"no such file: {error.filename}; check the path"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; choose another path, or repair this one"
    return f"{type(error).__name__}: {text or 'no message'} (--debug shows where)"


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the config file and its overrides."""
    parser.add_argument("config", help="config file (.py)")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change single settings, e.g. train_cfg.max_epochs=2 model.net.head.channels=32",
    )


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add where and how a program computes."""
    parser.add_argument("--work-dir", help="results folder, default work_dirs/CONFIG_NAME")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; default cuda where there is one")
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm"),
        help="how processes were started; default: torchrun is noticed by its environment",
    )
    parser.add_argument("--seed", type=int, help="seed of weights, data order and augmentation")
    parser.add_argument(
        "--deterministic", action="store_true", help="same seed, same weights, bit for bit"
    )


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add how pictures look."""
    parser.add_argument(
        "--forward",
        choices=("x", "y"),
        default="y",
        help="LiDAR axis that points ahead: y (nuScenes, default) or x (KITTI, Waymo)",
    )
    parser.add_argument(
        "--color-by",
        choices=("height", "intensity"),
        default="height",
        help="what colours the points, default height",
    )
    parser.add_argument(
        "--reach",
        type=float,
        default=54.0,
        metavar="M",
        help="metres to each edge of the bird's-eye view, default 54",
    )
    parser.add_argument(
        "--html", action="store_true", help="also write a page per frame to turn and zoom, offline"
    )
    parser.add_argument("--show", action="store_true", help="also open a window (needs a display)")


def options_of(kind: type[Options], arguments: argparse.Namespace) -> Options:
    """Return a dataclass filled from the parsed arguments of its names; others keep defaults."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{k: v for k, v in vars(arguments).items() if k in names})


def add_workload(parser: argparse.ArgumentParser) -> None:
    """Add what a model is measured with."""
    parser.add_argument(
        "--workload",
        default="w180",
        help="points: data (first frames of the test set), w180 (synthetic, 64 beams), tiny, or "
        "f1, f10 (the real frame, P3D_DATA); default w180",
    )
    parser.add_argument("--frames", type=int, default=1, help="frames of a batch, default 1")
