"""Timing on CUDA with a pretended torch.cuda: the order of what is called, and what is stored.

No figure of a GPU is tested here; that needs one.
"""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from perception3d.benchmark import ceilings, measure_cuda, run
from perception3d.benchmark.cuda_calls import CudaCalls
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.workloads import Workload

CUDA = torch.device("cuda")


class Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.time = time.perf_counter()

    def elapsed_time(self, end):
        return 1000 * (end.time - self.time)


class Graph:
    """Replays nothing: a real one would not call Python either."""

    def replay(self):
        pass


@pytest.fixture
def calls(monkeypatch):
    """Pretend torch.cuda; the list of what was called, "sync" and "flush" among it."""
    found = []
    stream = SimpleNamespace(wait_stream=lambda other: None)
    pretended = {
        "Event": Event,
        "CUDAGraph": Graph,
        "Stream": lambda device: stream,
        "current_stream": lambda device: stream,
        "stream": lambda stream: nullcontext(),
        "graph": lambda graph: nullcontext(),
        "device": lambda device: nullcontext(),
        "synchronize": lambda device=None: found.append("sync"),
        "get_device_name": lambda device: "Pretended GPU",
    }
    for name, value in pretended.items():
        monkeypatch.setattr(torch.cuda, name, value)
    flush = lambda: found.append("flush")  # noqa: E731  # as short as it is
    monkeypatch.setattr(measure_cuda, "cache_flush", lambda device: flush)
    return found


def test_candidates_alternate_alone_on_a_cold_cache(calls):
    candidates = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    timings = measure_cuda.measure_cuda(candidates, device=CUDA, rounds=2)
    assert calls[:7] == ["a"] * 3 + ["b"] * 3 + ["sync"]
    assert calls[7:] == [*("sync", "flush", "a", "sync"), *("sync", "flush", "b", "sync")] * 2
    assert all(len(timing.rounds) == 2 and timing.median > 0 for timing in timings.values())


def test_the_flush_is_larger_than_the_cache(monkeypatch):
    for cache, wanted in ((0, measure_cuda.SMALLEST_FLUSH), (50 * 2**20, 100 * 2**20)):
        properties = SimpleNamespace(L2_cache_size=cache)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, p=properties: p)
        flush = measure_cuda.cache_flush(torch.device("cpu"))
        assert flush.__self__.numel() == wanted
        assert not flush().any()


def test_a_call_that_waits_for_the_device_is_not_recorded(calls, monkeypatch):
    assert measure_cuda.capture(lambda: None, CUDA) is not None

    def waits():
        if recording:
            raise RuntimeError("operation not permitted when stream is capturing")

    recording = []

    class Recording:
        def __enter__(self):
            recording.append(True)

        def __exit__(self, *error):
            recording.clear()

    monkeypatch.setattr(torch.cuda, "graph", lambda graph: Recording())
    assert measure_cuda.capture(waits, CUDA) is None


def test_a_report_holds_eager_calls_and_replays(calls, monkeypatch):
    monkeypatch.setattr(Workload, "to", lambda self, device: self)
    monkeypatch.setattr(Workload, "device", CUDA)
    rates = {"copy_bytes_per_s": 4e12, "exp_per_s": 4e12, "gemm_float32_flops_per_s": 6e13}
    monkeypatch.setattr(ceilings, "measure_ceilings", lambda device, threads: rates)
    pause = lambda: time.sleep(1e-3)  # noqa: E731
    case = Case(lambda: None, {"peer": pause}, 0.0, 4000)
    row = Row("op", "s", lambda workload: case, ("tiny",), required_cuda={"peer": 0.5})
    monkeypatch.setattr(run, "ROWS", (row,))
    monkeypatch.setattr(run, "measure_cuda_calls", lambda ours, device: CudaCalls(7, 2))
    report = run.run_benchmark(["*"], ["tiny"], None, lambda line: None, "cuda")
    assert {(row["kernel_launches"], row["host_syncs"]) for row in report["rows"]} == {(7, 2)}
    assert report["machine"]["device"] == "Pretended GPU"
    assert report["ceilings"] == {"cuda": rates}
    assert [row["clock"] for row in report["rows"]] == ["CUDA events", "CUDA graph replay"]
    assert all(row["n"] == measure_cuda.CUDA_ROUNDS == 30 for row in report["rows"])
    assert all(row["floor_ms"] == pytest.approx(1e-6) for row in report["rows"])
    eager, graph = report["rows"]
    assert eager["ratio"] > 1
    assert eager["required"] == 0.5
    assert run.failures({**report, "rows": [eager]}, 1.0) == []
    assert len(run.failures({**report, "rows": [{**graph, "ratio": 0.4}]}, 1.0)) == 1
