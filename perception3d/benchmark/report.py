"""The page of measured figures, made from the stored reports and nothing else."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perception3d.benchmark.ceilings_text import ceiling_rows

Record = Mapping[str, Any]
INTRODUCTION = """# Performance

Made by `tools/render_performance.py` from `benchmarks/results/*.json`; a test keeps them equal.
Do not edit. A report is written by

```
tools/benchmark_ops.py [ROWS] --device cpu|cuda --workload NAME ... --json FILE
```

Ours and every peer alternate in one process on the same inputs; the ratio is the median over rounds
of peer / ours in the same round. A row is timed only after its result agreed with the reference.
Where several reports hold a row, the newest counts.

* T1: process CPU time with one thread (decides: other jobs hardly disturb it). T2: wall time with
  two.
* eager: CUDA events around one call, caches cold. graph: the same call replayed from a CUDA graph.
  launches / waits: kernels that one call of ours starts, and times the host waits for the GPU.
* floor: the time that no implementation can beat on this machine, by the ceilings below: bytes that
  must be moved, arithmetic, or exponentials, whichever takes longest. Data that stays in a cache
  between calls can be moved faster.
* must: the ratio that the operator has to reach, on the cloud that is judged. aim: what a strong
  kernel takes. "~" marks figures whose rounds differed by more than a fifth.
* Clouds: tiny (500 voxels), f1 (a real nuScenes sweep), f10 (ten moved copies of f1, synthetic),
  w180 (180,000 points of a synthetic 64-beam scan), tail (one window of 2,000 voxels, 500 of one).
"""


@dataclass(frozen=True)
class _Line:
    """What the page says about one row on one cloud: its records by clock and peer."""

    name: str
    workload: str
    records: tuple[Record, ...]

    def of(self, clock: str, peer: str | None) -> Record | None:
        for record in self.records:
            if record["clock"] == clock and record["peer_name"] == peer:
                return record
        return None

    def peers(self) -> list[str | None]:
        """Peers with a required ratio, and the fastest one; [None] where there is none."""
        first = self.records[0]["clock"]
        timed = [r for r in self.records if r["clock"] == first and r["peer_name"] is not None]
        if not timed:
            return [None]
        fastest = min(timed, key=lambda record: float(record["peer_ms"]))
        return [r["peer_name"] for r in timed if r["required"] is not None or r is fastest]


def read_reports(folder: Path) -> list[Record]:
    """Read the reports of a folder, oldest first."""
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return sorted(reports, key=lambda report: str(report["machine"]["time"]))


def render(reports: Sequence[Record]) -> str:
    """Return the page as Markdown.

    Args:
        reports: of `benchmark.run.run_benchmark`, oldest first.
    """
    parts = [INTRODUCTION]
    devices = dict.fromkeys(str(report["machine"]["device"]) for report in reports)
    for device in devices:
        own = [report for report in reports if report["machine"]["device"] == device]
        parts += _device_part(device, own)
    if not any(str(kind) == "cuda" for report in reports for kind in report["ceilings"]):
        parts.append(
            "## CUDA\n\nNot measured yet: no machine with a GPU was at hand. "
            "`make gpu-check` on one writes the report.\n"
        )
    return "\n".join(parts)


def _device_part(device: str, reports: Sequence[Record]) -> list[str]:
    newest = reports[-1]
    machine = newest["machine"]
    times = [str(report["machine"]["time"])[:10] for report in reports]
    span = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
    parts = [
        f"## {device}\n",
        f"{machine['cores']} cores, torch {machine['torch']}, Python {machine['python']}, "
        f"{span}.\n",
        _table(["ceiling", *map(_place, newest["ceilings"])], ceiling_rows(newest["ceilings"])),
    ]
    lines = _lines(reports)
    clocks = ("CUDA events", "CUDA graph replay")
    if "cuda" not in newest["ceilings"]:
        clocks = ("process CPU time", "wall time")
    for op in dict.fromkeys(str(line.records[0]["op"]) for line in lines):
        own = [line for line in lines if line.records[0]["op"] == op]
        parts += [f"### {op}\n", _operator_table(own, clocks)]
    wrong = [line for line in lines if line.records[0].get("wrong")]
    if wrong:
        named = ", ".join(f"{line.name} on {line.workload}" for line in wrong)
        parts.append(f"Wrong results, not timed: {named}.\n")
    return parts


def _place(name: str) -> str:
    return "" if name == "cuda" else name.removeprefix("cpu_").replace("_threads", " thread(s)")


def _lines(reports: Iterable[Record]) -> list[_Line]:
    """Group records by row and cloud; a later report replaces all that an earlier one says."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for report in reports:
        fresh: dict[tuple[str, str], list[Record]] = {}
        for record in report["rows"]:
            fresh.setdefault((record["name"], record["workload"]), []).append(record)
        groups.update(fresh)
    return [_Line(name, workload, tuple(group)) for (name, workload), group in groups.items()]


def _operator_table(lines: Sequence[_Line], clocks: tuple[str, str]) -> str:
    short = {"process CPU time": "T1", "wall time": "T2", "CUDA events": "eager"}
    one, two = (short.get(clock, "graph") for clock in clocks)
    heads = ["row", "cloud", f"ours {one} / {two}, ms", f"floor {two}, ms", "x floor", "peer"]
    heads += [f"ratio {one} / {two}", "must", "aim, ms", "verdict"]
    if one == "eager":
        heads.append("launches / waits")
    body = []
    for line in lines:
        if line.records[0].get("wrong"):
            continue
        for place, peer in enumerate(line.peers()):
            body.append(_cells(line, peer, clocks, first=place == 0))
    return _table(heads, body)


def _cells(line: _Line, peer: str | None, clocks: tuple[str, str], *, first: bool) -> list[str]:
    one = line.of(clocks[0], peer)
    assert one is not None
    two = line.of(clocks[1], peer)
    last = one if two is None else two
    row = line.name.split("/", 1)[1]
    ours = f"{_ms(one['ours_ms'])} / {'-' if two is None else _ms(two['ours_ms'])}{_noise(one)}"
    floor = f"{_ms(last['floor_ms'])} ({last['floor_kind']})"
    over = f"{last['ours_over_floor']:.3g}"
    cells = [row, line.workload, ours, floor, over] if first else ["", "", "", "", ""]
    ratio = "-" if peer is None else f"{_ratio(one)} / {'-' if two is None else _ratio(two)}"
    must = one["required"] if one["judged"] else None
    aim = one["aim_ms"] if first else None
    return [
        *cells,
        peer or "-",
        ratio,
        "" if must is None else f"{must:g}",
        "" if aim is None else f"{aim:g}",
        _verdict(one, two, must, aim),
        *([_calls(one) if first else ""] if clocks[0] == "CUDA events" else []),
    ]


def _calls(record: Record) -> str:
    """Kernel launches and waits of the host, where a profiler was there to count them."""
    if "kernel_launches" not in record:
        return "-"
    return f"{record['kernel_launches']} / {record['host_syncs']}"


def _verdict(one: Record, two: Record | None, must: float | None, aim: float | None) -> str:
    """Judge by one-thread CPU time, on CUDA by the lower of both ratios; the aim by clock two.

    A ratio below 1 is called a loss whether or not anything is required.
    """
    words = []
    ratios = [one["ratio"]]
    if two is not None and one["device"] == "cuda":
        ratios.append(two["ratio"])
    known = [float(ratio) for ratio in ratios if ratio is not None]
    if must is not None and known:
        words.append("met" if min(known) >= must else "**missed**")
    if known and min(known) < 1.0:
        words.append("loss")
    if aim is not None:
        best = float((one if two is None else two)["ours_ms"])
        words.append("aim met" if best <= aim else f"{best / aim:.2g} x aim")
    return ", ".join(words)


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _ratio(record: Record) -> str:
    return "-" if record["ratio"] is None else f"{_ms(record['ratio'])}{_noise(record)}"


def _noise(record: Record) -> str:
    return "~" if record["noisy"] else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
