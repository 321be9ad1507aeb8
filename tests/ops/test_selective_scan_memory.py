"""Memory that a selective scan takes: for what goes in and out, not for all states of all steps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = """
import ctypes, json
from pathlib import Path
import torch

torch.set_num_threads(1)
ctypes.CDLL(None).mallopt(-3, 1 << 18)  # M_MMAP_THRESHOLD: what is freed goes back at once

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])

def peak_of(run):
    run()  # libraries are loaded, workers started
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak, proc(5)
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before
"""

# exp(delta A) of every step, channel and state would be 16 times as large as u.
SCAN = """
from perception3d.ops import selective_scan

length, channels, states = 30_000, 128, 16
u, delta, gate, grad = (torch.randn(length, channels) for _ in range(4))
b, c = (torch.randn(length, states) for _ in range(2))
a = -torch.rand(channels, states) - 0.5
offsets = torch.tensor([0, length])
leaves = [t.requires_grad_() for t in (u, delta, a, b, c, gate)]

def scan(u, delta, a, b, c, gate):
    return selective_scan(u, delta, a, b, c, offsets, gate=gate, delta_softplus=True)

with torch.no_grad():
    forward = peak_of(lambda: scan(*leaves))
both = peak_of(lambda: torch.autograd.grad(scan(*leaves), leaves, grad))
print(json.dumps([forward, both, 4 * u.numel()]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system tells no peak")
def test_a_scan_has_no_buffer_of_steps_by_channels_by_states():
    command = [sys.executable, "-c", PRELUDE + SCAN]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    forward, both, size = json.loads(result.stdout)
    # In multiples of u: the result; that, six gradients and the states between chunks.
    assert 0.8 * size < forward < 1.5 * size
    assert 3 * size < both < 6 * size
