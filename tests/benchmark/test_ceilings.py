"""Ceilings of the machine, and the floors that follow."""

import torch

from perception3d.benchmark import ceilings
from perception3d.benchmark.row import Case


def test_measured_on_this_machine(monkeypatch):
    monkeypatch.setattr(ceilings, "LONGEST", 0.0)
    before = torch.get_num_threads()
    rates = ceilings.measure_ceilings(torch.device("cpu"), 1)
    assert torch.get_num_threads() == before
    assert all(1e7 < rate < 1e15 for rate in rates.values()), rates
    assert rates["gather_bytes_per_s"] < 4 * rates["copy_bytes_per_s"]


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
