"""The page of measured figures."""

from pathlib import Path

import pytest

from perception3d.benchmark.report import read_reports, render

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_page_is_made_from_the_committed_reports():
    reports = read_reports(ROOT / "benchmarks" / "results")
    assert reports
    page = (ROOT / "docs" / "performance.md").read_text()
    assert page == render(reports), "run tools/render_performance.py"


def record(clock="process CPU time", peer="peer", **more):
    times = {"ours_ms": 1.0, "peer_ms": 4.0, "ratio": 4.0, "floor_ms": 0.5, "ours_over_floor": 2.0}
    if peer is None:
        times |= {"peer_ms": None, "ratio": None}
    return {
        **{"name": "op/grid", "op": "op", "setting": "grid", "workload": "f10", "device": "cpu"},
        **{"judged": True, "aim_ms": None, "required": None, "clock": clock, "peer_name": peer},
        **{"floor_kind": "memory copy", "noisy": False, **times, **more},
    }


def report(*rows, time="2026-01-02", device="CPU", place="cpu_1_threads"):
    machine = {"device": device, "time": time, "cores": 2, "torch": "2.13", "python": "3.11"}
    return {"machine": machine, "ceilings": {place: {"exp_per_s": 2e9}}, "rows": list(rows)}


def lines_of(page):
    return [line for line in page.splitlines() if line.startswith(("| grid", "|  |"))]


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({"required": 4.0}, "met"),
        ({"required": 4.5}, "**missed**"),
        ({"required": 4.5, "judged": False}, ""),
        ({"ratio": 0.8}, "loss"),
        ({"ratio": 0.8, "required": 0.5}, "met, loss"),
        ({"aim_ms": 1.0}, "aim met"),
        ({"aim_ms": 0.5}, "2 x aim"),
    ],
)
def test_verdict_on_the_cpu(more, verdict):
    (line,) = lines_of(render([report(record(**more))]))
    assert line.endswith(f"| {verdict} |")


def test_cells_of_both_clocks():
    rows = [record(noisy=True), record("wall time", ours_ms=1234.5, ratio=3.0, aim_ms=None)]
    (line,) = lines_of(render([report(*rows)]))
    assert line == (
        "| grid | f10 | 1 / 1234~ | 0.5 (memory copy) | 2 | peer | 4~ / 3 |  |  |  |"
    )  # two-to-even


def test_cuda_is_judged_by_the_lower_ratio():
    rows = [
        record("CUDA events", device="cuda", required=3.5),
        record("CUDA graph replay", device="cuda", required=3.5, ratio=3.0),
    ]
    page = render([report(*rows, device="H200", place="cuda")])
    (line,) = lines_of(page)
    assert line.endswith("| 4 / 3 | 3.5 |  | **missed** | - |")
    counted = [{**row, "kernel_launches": 7, "host_syncs": 1} for row in rows]
    (line,) = lines_of(render([report(*counted, device="H200", place="cuda")]))
    assert line.endswith("| **missed** | 7 / 1 |")
    assert "eager / graph" in page
    assert "Not measured yet" not in page
    assert "Not measured yet" in render([report(record())])


def test_required_peers_and_the_fastest_are_shown():
    rows = [
        record(peer="peer a", required=2.0),
        record(peer="peer b", peer_ms=2.0),
        record(peer="peer c"),
    ]
    lines = lines_of(render([report(*rows)]))
    assert len(lines) == 2
    assert "peer a" in lines[0]
    assert lines[1].startswith("|  |  |  |  |  | peer b |")


def test_a_newer_report_replaces_rows_of_an_older_one():
    old = report(record(), record(name="op/other", peer=None), time="2026-01-01")
    new = report(record(ours_ms=0.25))
    page = render([old, new])
    assert "| grid | f10 | 0.25 / - |" in page
    assert "| grid | f10 | 1 / - |" not in page
    assert "| other | f10 | 1 / - |" in page
    assert "2026-01-01 to 2026-01-02" in page


def test_wrong_rows_are_named_without_a_time():
    wrong = {"name": "op/grid", "op": "op", "workload": "f1", "wrong": True}
    page = render([report(wrong)])
    assert "Wrong results, not timed: op/grid on f1." in page
    assert not lines_of(page)
