"""Rows, peers and the report."""

import json
import math
from importlib.util import find_spec

import pytest
import torch

from perception3d.benchmark import ceilings, run, workloads
from perception3d.benchmark.record import write_report
from perception3d.benchmark.registry import ROWS
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.workloads import WORKLOADS, MissingData, make_workload
from perception3d.ops import voxelize, window_partition

FIELDS = {
    *("op", "workload", "dtype", "device", "threads", "direction", "ours_ms", "peer_name"),
    *("peer_ms", "ratio", "floor_ms", "floor_kind", "ours_over_floor", "max_err", "n", "spread"),
}


CEILINGS = {"copy_bytes_per_s": 4e10, "exp_per_s": 2e9, "gemm_float32_flops_per_s": 2e11}


@pytest.fixture(autouse=True)
def known_ceilings(monkeypatch):
    """Measuring the machine takes seconds; test_ceilings.py does it once."""
    monkeypatch.setattr(ceilings, "measure_ceilings", lambda device, threads: CEILINGS)


SMALL = [(row, name) for row in ROWS for name in ("tiny", "tail") if name in row.workloads]


@pytest.mark.parametrize(("row", "name"), SMALL, ids=lambda value: getattr(value, "name", value))
def test_ours_and_every_peer_agree(row, name, device):
    try:
        case = row.prepare(make_workload(name).to(device))
    except NotImplementedError as missing:  # torch's, for an operator without a CUDA kernel
        assert device.type == "cuda"
        pytest.skip(str(missing).splitlines()[0])
    assert case.max_error <= row.tolerance
    assert case.floor_bytes > 0
    if device.type == "cpu" and find_spec("nuscenes"):  # else peers are missing
        assert case.peers
        assert set(row.required) <= set(case.peers)
    for peer in case.peers.values():
        peer()


def test_row_names_are_unique():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert all(set(row.workloads) <= set(WORKLOADS) for row in ROWS)
    assert all(row.direction in ("forward", "backward", "both") for row in ROWS)
    assert all(row.dtype in ("float32", "bfloat16", "float16") for row in ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_peers_of_required_ratios_exist(row):
    assert set(row.required) <= set(row.prepare(make_workload("tiny")).peers)


def test_peers_compute_the_same_means():
    rows = [row for row in ROWS if row.op == "voxelize"]
    assert rows
    for row in rows:
        case = row.prepare(make_workload("tiny"))
        ours = case.ours()
        for name, peer in case.peers.items():
            if "no mean" not in name:
                torch.testing.assert_close(peer(), ours)


def test_report_has_all_fields_and_is_written_whole(tmp_path):
    lines = []
    report = run.run_benchmark(["set_partition/*", "voxelize/fine*"], ["tiny"], 2, lines.append)
    path = tmp_path / "folder" / "report.json"
    write_report(report, path)
    stored = json.loads(path.read_text())
    assert list(path.parent.iterdir()) == [path]
    assert {row["op"] for row in stored["rows"]} == {"set_partition", "voxelize"}
    assert all(set(row) >= FIELDS for row in stored["rows"])
    assert all(row["ours_ms"] > 0 and math.isfinite(row["ratio"]) for row in stored["rows"])
    assert {"commit", "torch", "processor", "load_1_minute"} <= set(stored["machine"])
    assert any("set_partition/dsvt_pillar_waymo" in line for line in lines)


def test_a_wrong_result_is_not_timed(monkeypatch):
    def never():
        raise AssertionError("timed although wrong")

    row = Row(
        "op", "wrong", lambda workload: Case(never, {"peer": never}, 1e-3, 8), ("tiny",), 1e-5
    )
    monkeypatch.setattr(run, "ROWS", (row,))
    report = run.run_benchmark(["*"], ["tiny"], 2, lambda line: None)
    assert "ours_ms" not in report["rows"][0]
    assert run.failures(report, 0.0) == ["op/wrong tiny: wrong result"]


def test_slow_rows_fail_the_check(monkeypatch):
    def slow():
        return sum(range(20_000))

    case = Case(slow, {"fast": lambda: None}, 0.0, 8)
    row = Row("op", "slow", lambda workload: case, ("tiny",), required={"fast": 1.0})
    monkeypatch.setattr(run, "ROWS", (row,))
    report = run.run_benchmark(["*"], ["tiny"], 2, lambda line: None)
    assert len(run.failures(report, 0.5)) == 1
    assert run.failures(report, 0.0) == []


def test_the_must_is_demanded_on_its_workload_only(monkeypatch):
    case = Case(lambda: sum(range(20_000)), {"fast": lambda: None}, 0.0, 8)
    row = Row("op", "slow", lambda workload: case, ("tiny", "tail"), required={"fast": 1.0})
    monkeypatch.setattr(run, "ROWS", (row,))
    report = run.run_benchmark(["*"], ["tiny", "tail"], 2, lambda line: None)
    assert row.judged_on == "tail"
    assert len(run.failures(report, 1.0)) == 2
    (problem,) = run.failures(report, 1.0, judged_only=True)
    assert "tail" in problem


def test_other_rows_run_when_one_breaks_or_has_no_kernel(monkeypatch):
    def broken(workload):
        raise RuntimeError("no luck\npages of detail")

    def missing(workload):
        raise NotImplementedError("Could not run 'perception3d::op' with the 'CUDA' backend.")

    def bad_peer():
        raise OSError("no such device")

    case = Case(lambda: None, {"bad": bad_peer, "good": lambda: None}, 0.0, 8)
    prepare = {"broken": broken, "missing": missing, "alone": lambda workload: case}
    rows = tuple(Row("op", name, make, ("tiny",)) for name, make in prepare.items())
    monkeypatch.setattr(run, "ROWS", rows)
    report = run.run_benchmark(["*"], ["tiny"], 2, lambda line: None)
    assert {row["peer_name"] for row in report["rows"]} == {"good"}
    assert report["failed"] == ["op/broken tiny: RuntimeError: no luck"]
    assert run.failures(report, 0.0) == report["failed"]
    assert "op/missing tiny: Could not run" in report["skipped"][0]
    assert "op/alone tiny: peer 'bad': OSError: no such device" in report["skipped"]


def test_the_guard_measures_only_what_is_required(monkeypatch):
    def never():
        raise AssertionError("measured although not required")

    peers = {"slow": lambda: sum(range(20_000)), "other": never}
    case = Case(lambda: None, peers, 0.0, 8)
    rows = (
        Row("op", "judged", lambda workload: case, ("tiny",), required={"slow": 1.0}),
        Row("op", "free", lambda workload: never(), ("tiny",)),
    )
    monkeypatch.setattr(run, "ROWS", rows)
    report = run.run_benchmark(["*"], ["tiny"], 2, lambda line: None, judged_only=True)
    assert [(row["name"], row["peer_name"], row["threads"]) for row in report["rows"]] == [
        ("op/judged", "slow", 1)
    ]
    assert report["failed"] == []
    assert list(report["ceilings"]) == ["cpu_1_threads"]


def test_a_row_without_peers_is_timed(monkeypatch):
    row = Row("op", "own", lambda workload: Case(lambda: None, {}, 0.0, 8), ("tiny",))
    monkeypatch.setattr(run, "ROWS", (row,))
    report = run.run_benchmark(["*"], ["tiny"], 2, lambda line: None)
    assert report["rows"]
    assert all(set(line) >= FIELDS and line["ours_ms"] > 0 for line in report["rows"])
    assert all(line["peer_name"] is None and line["ratio"] is None for line in report["rows"])
    assert run.failures(report, 1.0) == []


def test_names_tell_direction_and_dtype():
    def row(**more):
        return Row("op", "s", lambda workload: None, ("tiny", "f1"), **more)

    assert row().name == "op/s"
    assert row(direction="both", dtype="bfloat16").name == "op/s/both/bfloat16"
    assert row().judged_on == "f1"
    both = row(required={"a": 2.0}, required_cuda={"b": 3.0}, aim_ms=1.0, aim_ms_cuda=0.1)
    assert (both.required_on("cpu"), both.aim_on("cpu")) == ({"a": 2.0}, 1.0)
    assert (both.required_on("cuda"), both.aim_on("cuda")) == ({"b": 3.0}, 0.1)


def test_missing_frame_is_skipped_visibly(monkeypatch, tmp_path):
    monkeypatch.setenv("P3D_DATA", str(tmp_path))
    with pytest.raises(MissingData, match="set P3D_DATA"):
        make_workload("f10")
    lines = []
    report = run.run_benchmark(["*"], ["f1"], 2, lines.append)
    assert report["rows"] == []
    assert "no nuScenes frame" in report["skipped"][0]
    assert any(line.startswith("skipped f1") for line in lines)


def test_workload_sizes():
    assert make_workload("w180").points.shape == (180_000, 5)
    tiny = make_workload("tiny")
    frame = torch.zeros(len(tiny.points), dtype=torch.int32)
    extent = (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)
    assert voxelize(tiny.points, frame, 1, (0.32, 0.32, 6.0), extent)[1].shape[0] == 500
    tail = make_workload("tail").raised()
    frame = torch.zeros(len(tail), dtype=torch.int32)
    coords = voxelize(tail, frame, 1, (0.32, 0.32, 0.1875), extent)[1]
    offsets = window_partition(coords, 1, (32, 468, 468), (32, 12, 12), (0, 0, 0))[2]
    assert offsets.diff().sort().values.tolist() == [1] * 500 + [2000]
    with pytest.raises(ValueError, match="name must be one of"):
        make_workload("f2")
    assert torch.equal(make_workload("w180").points, workloads.make_workload("w180").points)
