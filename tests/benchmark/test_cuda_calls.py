"""Kernel launches and waits of the host, counted in what torch's profiler tells."""

import pytest
import torch

from perception3d.benchmark.cuda_calls import CudaCalls, count_calls, measure_cuda_calls

CALL = "perception3d: counted"


def test_what_lies_inside_the_call_counts():
    events = [
        ("cudaLaunchKernel", 1.0, 2.0),  # a warm-up
        (CALL, 5.0, 20.0),
        ("cudaLaunchKernel", 5.0, 6.0),
        ("aten::mul", 5.0, 7.0),
        ("cuLaunchKernelEx", 8.0, 9.0),
        ("cudaMemcpyAsync", 10.0, 11.0),
        ("cudaStreamSynchronize", 11.0, 12.0),
        ("cudaDeviceSynchronize", 21.0, 30.0),  # the end of the profile
    ]
    assert count_calls(events) == CudaCalls(kernel_launches=2, host_syncs=1)


def test_a_profile_without_a_call_is_no_zero():
    with pytest.raises(RuntimeError, match="saw no call"):
        count_calls([("cudaLaunchKernel", 0.0, 1.0)])


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_the_profiler_names_the_call(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    calls = []
    counted = measure_cuda_calls(lambda: calls.append(torch.ones(3) * 2), torch.device("cpu"))
    assert counted == CudaCalls(0, 0)
    assert len(calls) == 3


@pytest.mark.gpu
def test_counts_on_a_device():
    device = torch.device("cuda")
    values = torch.ones(3, device=device)
    calls = measure_cuda_calls(lambda: (values * 2)[0].item(), device)
    assert calls.kernel_launches >= 1
    assert calls.host_syncs == 1
