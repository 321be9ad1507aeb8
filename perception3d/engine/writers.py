"""Where log records go: the terminal, a JSON-lines file, TensorBoard."""

import datetime
import json
import math
import sys
from pathlib import Path
from typing import Any, Protocol, TextIO

from tqdm import tqdm

Record = dict[str, Any]


class Writer(Protocol):
    """Takes records, and the progress of the phase that runs."""

    def begin(self, phase: str, done: int, total: int) -> None:
        """A phase ("train", "val", "test") starts with `done` of `total` steps behind it."""

    def advance(self) -> None:
        """One step is done."""

    def write(self, record: Record) -> None:
        """Take a record; `record["event"]` says which kind."""

    def end(self) -> None:
        """The phase is over."""


class ConsoleWriter:
    """A bar with the time left on a terminal, plain lines elsewhere.

    Args:
        stream: where to write.
        every_s: seconds between plain progress lines of a test phase.
    """

    def __init__(self, stream: TextIO | None = None, every_s: float = 20.0) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.every_s = every_s
        self.bar: tqdm[Any] | None = None
        self._said = 0.0

    def begin(self, phase: str, done: int, total: int) -> None:
        """Open the bar; off a terminal it is silent and only keeps the time."""
        self.end()
        terminal = self.stream.isatty()
        self.bar = tqdm(
            desc=phase,
            total=total,
            initial=done,
            file=self.stream if terminal else _Silent(),
            dynamic_ncols=terminal,
            unit="step",
        )
        self._said = 0.0

    def advance(self) -> None:
        """Move the bar; off a terminal say now and then how far a test phase is."""
        if self.bar is None:
            return
        self.bar.update()
        state = self.bar.format_dict
        if self.stream.isatty() or self.bar.desc.startswith("train"):
            return
        if state["elapsed"] - self._said > self.every_s:
            self._said = state["elapsed"]
            left = (state["total"] - state["n"]) * state["elapsed"] / max(state["n"], 1)
            self._line(f"{self.bar.desc} step {state['n']}/{state['total']}  ETA {duration(left)}")

    def write(self, record: Record) -> None:
        """Print a record as one line."""
        line = describe(record)
        if line:
            self._line(line)

    def end(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _line(self, text: str) -> None:
        if self.stream.isatty():
            tqdm.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)


class _Silent:
    """A stream that drops everything."""

    def write(self, text: str) -> None:
        """Drop it."""

    def flush(self) -> None:
        """Nothing to do."""


class JsonLinesWriter:
    """One JSON object a line, appended; NaN and infinity become null.

    Args:
        path: file, made when the first record comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, phase: str, done: int, total: int) -> None:
        """Progress is not stored."""

    def advance(self) -> None:
        """Progress is not stored."""

    def write(self, record: Record) -> None:
        """Append a record with the time of day, in one write."""
        now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
        line = json.dumps(finite({"time": now, **record}), default=str)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(line + "\n")

    def end(self) -> None:
        """Nothing is held open."""


class TensorBoardWriter:
    """Curves for TensorBoard, where it is installed.

    Args:
        folder: event files go here.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(folder))

    def begin(self, phase: str, done: int, total: int) -> None:
        """Progress is no curve."""

    def advance(self) -> None:
        """Progress is no curve."""

    def write(self, record: Record) -> None:
        """Add each number to its curve."""
        step = record.get("step", 0)
        for name, value in record.items():
            if isinstance(value, float):
                self.board.add_scalar(f"{record['event']}/{name}", value, step)
        self.board.flush()

    def end(self) -> None:
        """Keep the file open for the next phase."""


def finite(value: Any) -> Any:
    """Return a value with NaN and infinity replaced by None: JSON has neither."""
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def duration(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    return str(datetime.timedelta(seconds=round(seconds)))


def describe(record: Record) -> str:
    """Write a record as one line for people."""
    event = record["event"]
    if event == "train":
        losses = "  ".join(
            f"{name} {value:.4f}"
            for name, value in record.items()
            if name == "loss" or name.startswith("loss_")
        )
        return (
            f"epoch {record['epoch']}/{record['epochs']}  step {record['step']}/{record['steps']}  "
            f"{losses}  lr {record['lr']:.3g}  grad {record['grad_norm']:.3g}  "
            f"{record['step_s']:.3f} s (data {record['data_s']:.3f})  "
            f"ETA {duration(record['eta_s'])}"
        )
    if event in ("val", "test"):
        numbers = {k: v for k, v in record.items() if isinstance(v, float) and k != "seconds"}
        # one line holds the totals; the per-class figures are in the log file
        totals = {k: v for k, v in numbers.items() if k.count("/") <= 1}
        text = "  ".join(f"{k.rpartition('/')[2]} {v:.4f}" for k, v in totals.items())
        return f"{event}  {text}  ({record['seconds']:.1f} s)"
    if event == "start":
        return (
            f"{record['work_dir']}: config {record['config_hash']}, seed {record['seed']}, "
            f"{record['device']} x {record['processes']}, "
            f"{record['parameters']:,} parameters in {record['model']}"
        )
    if event == "end":
        seconds = "  ".join(f"{name} {value:.1f} s" for name, value in record["seconds"].items())
        return f"done: {seconds}"
    return str(record.get("text", ""))
