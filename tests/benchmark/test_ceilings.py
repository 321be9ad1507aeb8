"""Ceilings of the machine, and the floors that follow."""

import pytest
import torch

from perception3d.benchmark import ceilings, native_peaks
from perception3d.benchmark.ceilings_text import WORDS, ceiling_rows
from perception3d.benchmark.row import Case


def test_measured_on_this_machine(monkeypatch):
    monkeypatch.setattr(ceilings, "LONGEST", 0.0)
    before = torch.get_num_threads()
    rates = ceilings.measure_ceilings(torch.device("cpu"), 1)
    assert torch.get_num_threads() == before
    assert all(1e7 < rate < 1e15 for rate in rates.values()), rates
    assert rates["gather_bytes_per_s"] < 4 * rates["copy_bytes_per_s"]


def test_compiled_loops_count_what_they_do():
    """What a loop returns follows from its number of rounds, so it ran them all."""
    library = native_peaks.load_peaks(cuda=False)
    if library is None:
        pytest.skip("no C++ compiler")
    lanes = library.p3d_fma_round() // 24  # twelve chains, two operations each
    assert lanes in (4, 8, 16)
    # chain' = 0.999 chain + 0.001 starts at 0, 0.1, ... 1.1 and tends to 1.
    assert library.p3d_fma_loop(0, 1) == pytest.approx(6.6 * lanes, rel=1e-5)
    assert library.p3d_fma_loop(100_000, 2) == pytest.approx(2 * 12 * lanes, rel=1e-3)
    numbers = library.p3d_exp_round()
    wanted = sum(2.0 ** (-0.01 * i) for i in range(numbers))
    assert library.p3d_exp_loop(1, 1) == pytest.approx(wanted, rel=1e-6)
    assert library.p3d_exp_loop(10, 2) == pytest.approx(20 * wanted, rel=1e-5)


def test_without_a_compiler_torch_gives_the_ceilings(monkeypatch):
    monkeypatch.setattr(ceilings, "LONGEST", 0.0)
    monkeypatch.setattr(ceilings, "peak_loop", lambda *arguments: None)
    rates = ceilings.measure_ceilings(torch.device("cpu"), 1)
    assert "fma_float32_flops_per_s" not in rates
    assert rates["exp_per_s"] > 0
    assert ceilings.floor_of(Case(int, {}, 0.0, 0, 100), "float32", rates)[1] == "arithmetic"


def test_words_for_every_ceiling(monkeypatch):
    monkeypatch.setattr(ceilings, "LONGEST", 0.0)
    places = ceilings.ceilings_by_threads(torch.device("cpu"), [1, 2])
    assert set(places) == {"cpu_1_threads", "cpu_2_threads"}
    assert set(places["cpu_1_threads"]) <= set(WORDS)
    rows = ceiling_rows({"a": {"copy_bytes_per_s": 4.25e10}, "b": {}})
    assert rows[0] == ["copy, read plus written", "42.5 GB/s", "-"]


def test_the_slowest_need_is_the_floor():
    rates = {
        "copy_bytes_per_s": 1e9,
        "exp_per_s": 1e6,
        "gemm_float32_flops_per_s": 1e9,
        "gemm_bfloat16_flops_per_s": 4e9,
        "fma_float32_flops_per_s": 2e9,
    }

    def floor(dtype, flops=0, exps=0):
        case = Case(lambda: None, {}, 0.0, 1000, flops, exps)
        return ceilings.floor_of(case, dtype, rates)

    assert floor("float32") == (0.001, "memory copy")
    assert floor("float32", flops=10_000) == (0.005, "arithmetic")
    assert floor("bfloat16", flops=10_000) == (0.0025, "arithmetic")
    assert floor("bfloat16", flops=10_000, exps=100) == (0.1, "exponentials")
