"""What tools/benchmark.py does."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from perception3d.benchmark.cuda_calls import measure_cuda_calls
from perception3d.benchmark.machine import describe_machine
from perception3d.benchmark.network import measure_stages, rows, run_once
from perception3d.benchmark.shares import measure_shares
from perception3d.engine.checkpoint_file import write_whole
from perception3d.engine.config import fingerprint, load_config
from perception3d.engine.network import load_network
from perception3d.engine.workload import make_batch
from perception3d.errors import UserError
from perception3d.structures import Batch

_LISTED_SHARES = 15


@dataclass(frozen=True)
class LatencyOptions:
    """What is measured, and how.

    Attributes:
        checkpoint: weights; None: as initialised (a trained net decodes other boxes).
        device: "cpu", "cuda" or "cuda:N".
        workload: see `perception3d.engine.workload.make_batch`.
        frames: frames of the batch.
        rounds: samples per figure.
        threads: torch's threads for wall time on the CPU.
        train: forward pass, loss and backward pass instead of a prediction.
        shares: also tell which operators the time of a prediction goes to: "all", or a part of the
            network such as "backbone".
    """

    checkpoint: str | None = None
    device: str | None = None
    workload: str = "w180"
    frames: int = 1
    rounds: int = 9
    threads: int = 2
    train: bool = False
    shares: str | None = None


def measure_model(
    config_file: str | Path,
    config_options: Sequence[str] = (),
    options: LatencyOptions | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure the stages of a config's network.

    Args:
        config_file: config file.
        config_options: `KEY=VALUE` settings.
        options: what is measured, and how.
        tell: gets each line of the table.

    Returns:
        {"machine", "config_hash", "rows", "shares"}, fit for JSON.

    Raises:
        UserError: anything wrong with config, checkpoint, device or workload.
    """
    chosen = options or LatencyOptions()
    if chosen.rounds < 1 or chosen.threads < 1:
        raise UserError("--rounds and --threads must be >= 1")
    config = load_config(config_file, config_options)
    net = load_network(config, chosen.checkpoint, chosen.device)
    batch = make_batch(config, chosen.workload, chosen.frames, net)
    if chosen.train and batch.targets is None:
        raise UserError(f"--train: {chosen.workload} has no annotations; use --workload data")
    settings = [("wall time", chosen.threads, False)]
    if batch.points.device.type == "cpu":
        settings.insert(0, ("process CPU time", 1, True))
    measured = []
    for clock, count, cpu_time in settings:
        timings = measure_stages(
            net,
            batch,
            rounds=chosen.rounds,
            threads=count,
            cpu_time=cpu_time,
            train=chosen.train,
        )
        measured += rows(
            timings,
            op=Path(config_file).stem,
            workload=chosen.workload,
            batch=batch,
            threads=count,
            direction="both" if chosen.train else "forward",
            clock="CUDA events" if batch.points.is_cuda else clock,
        )
    for row in measured:
        tell(
            f"{row['op']:32s} {row['workload']:6s} {row['points']:8,} points  T{row['threads']}  "
            f"{row['ours_ms']:10.2f} ms  ({row['clock']}, spread {100 * row['spread']:.0f} %)"
        )
    if batch.points.is_cuda and not chosen.train:
        measured += _tell_calls(net, batch, measured[-1], tell)
    shares = _tell_shares(net, batch, chosen.shares, tell) if chosen.shares else []
    machine = {**describe_machine(), "device": _device_name(batch.points.device)}
    return {
        "machine": machine,
        "config_hash": fingerprint(config),
        "rows": measured,
        "shares": shares,
    }


def _tell_calls(
    net: nn.Module, batch: Batch, total: dict[str, Any], tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return a row for the kernel launches and one for the waits of the host, after `total`'s."""
    net.eval()
    found = asdict(measure_cuda_calls(partial(run_once, net, batch, False), batch.points.device))
    op = total["op"].removesuffix("/total")
    for name, count in found.items():
        tell(f"{f'{op}/{name}':32s} {total['workload']:6s} {count:6d} a prediction")
    times = {"ours_ms": None, "n": 1, "spread": None, "clock": "torch.profiler"}
    return [{**total, **times, "op": f"{op}/{name}", "count": n} for name, n in found.items()]


def _tell_shares(
    net: nn.Module, batch: Batch, part: str, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    try:
        shares = measure_shares(net, batch, None if part == "all" else part)
    except ValueError as error:
        raise UserError(f"--shares: {error}") from error
    tell(f"operators of {part}, one thread: share, ms, calls")
    for share in shares[:_LISTED_SHARES]:
        tell(
            f"{100 * share.share:6.1f} % {share.milliseconds:10.2f} ms {share.calls:6.0f}  "
            f"{share.operator}"
        )
    return [asdict(share) for share in shares]


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def store(report: dict[str, Any], path: str | Path) -> None:
    """Write a report as JSON, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(report, indent=2, default=str) + "\n").encode())
