"""One measured line of the operator benchmark, as it is stored."""

import json
from pathlib import Path

from perception3d.benchmark.ceilings import Ceilings, floor_of
from perception3d.benchmark.measure import Timing, paired_ratio
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.workloads import Workload

Record = dict[str, object]
NOISY_SPREAD = 0.2


def describe_case(row: Row, workload: Workload, case: Case) -> Record:
    """Return what is the same for every peer and clock."""
    device = workload.device.type
    return {
        "name": row.name,
        "op": row.op,
        "setting": row.setting,
        "workload": workload.name,
        "synthetic": workload.synthetic,
        "dtype": row.dtype,
        "device": device,
        "direction": row.direction,
        "judged": workload.name == row.judged_on,
        "aim_ms": row.aim_on(device) if workload.name == row.judged_on else None,
        "max_err": case.max_error,
    }


def describe_times(
    row: Row,
    workload: Workload,
    case: Case,
    timings: dict[str, Timing],
    peer: str | None,
    ceilings: Ceilings,
) -> Record:
    """Return our time beside one peer's and the floor; `peer` None: there is none to compare."""
    ours = timings["ours"]
    floor_ms, floor_kind = floor_of(case, row.dtype, ceilings)
    other = None if peer is None else timings[peer]
    ratio = (None, None, None) if other is None else paired_ratio(ours, other)
    noise = max(ours.spread, 0.0 if other is None else other.spread)
    return {
        "ours_ms": ours.median,
        "peer_name": peer,
        "peer_ms": None if other is None else other.median,
        "ratio": ratio[0],
        "ratio_min": ratio[1],
        "ratio_max": ratio[2],
        "required": None if peer is None else row.required_on(workload.device.type).get(peer),
        "floor_ms": floor_ms,
        "floor_kind": floor_kind,
        "ours_over_floor": ours.median / floor_ms,
        "n": len(ours.rounds),
        "peer_n": None if other is None else len(other.rounds),
        "spread": ours.spread,
        "noisy": noise > NOISY_SPREAD,
    }


def describe(record: Record) -> str:
    """Return one line of text for a record."""
    clock = {"CUDA events": "eager", "CUDA graph replay": "graph"}
    line = (
        f"{record['name']:40s} {record['workload']:5s} "
        f"{clock.get(str(record['clock']), 'T' + str(record['threads']))} "
        f"ours {record['ours_ms']:8.3f} ms  floor {record['floor_ms']:7.3f} ms"
    )
    if record["peer_name"] is not None:
        line += (
            f"  {record['peer_name']:30s} {record['peer_ms']:9.3f} ms  "
            f"x{record['ratio']:6.2f} ({record['ratio_min']:.2f}..{record['ratio_max']:.2f})"
        )
    return line + ("  noisy" if record["noisy"] else "")


def write_report(report: Record, path: Path) -> None:
    """Write the report as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(report, indent=1) + "\n")
    draft.replace(path)
