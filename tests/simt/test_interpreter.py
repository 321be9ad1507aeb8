"""The interpreter accepts right kernels and reports each kind of fault, with the place."""

import re

import pytest
from simt_library import run_example, schedule

RIGHT = ["barrier", "many barriers", "last block", "shared", "dynamic", "warp functions"]
RIGHT += ["warp barrier", "no blocks", "tiles of bfloat16", "tiles of float16", "copy ahead"]
HERE = r"block \(\d+, 0, 0\), thread \(\d+, 0, 0\): "
FAULTS = {
    "missing barrier": "(reads shared tile .* nobody has written|another thread wrote; no barrier)",
    "reuse too early": "shared tile .* another thread (read|wrote); no barrier comes between",
    "barrier of some": "waits in __syncthreads .* has ended without coming there",
    "barrier in two places": "divergent __syncthreads",
    "behind shared": "writes 4 bytes at byte 256 of shared tile, which has 256 bytes",
    "before shared": "writes 4 bytes at byte -4 of shared tile",
    "behind dynamic": "writes 4 bytes at byte 252 of dynamic shared memory, which has 252 bytes",
    "unwritten": "reads shared tile at byte 28, which nobody has written",
    "behind global": "writes 4 bytes at byte 1024 of numbers, which has 1024 bytes",
    "before global": "writes 4 bytes at byte -[48] of numbers",
    "far away": "writes 4 bytes at 0x[0-9a-f]+, which lies in no buffer of the launch",
    "read behind": "reads 4 bytes at byte 256 of input, which has 256 bytes",
    "write input": "writes input, which may only be read",
    "write same place": "writes numbers at byte 0, which another thread wrote",
    "index": r"example: rows must be in 0\.\.3, got 4",
    "mask without the caller": "__shfl_sync with a mask that does not name this lane",
    "lane of no block": "waits in __shfl_sync .* for lane 31, which the block does not have",
    "lane has ended": "waits in __shfl_sync .* for lane 5, which has ended",
    "source outside the mask": "a lane reads from a lane that is not in the mask",
    "collective against barrier": "waits in __shfl_xor_sync .* lane 5, .* waits in __syncthreads",
    "missing warp barrier": "reads shared tile .*(another thread wrote|nobody has written)",
}
REFUSALS = {
    "threads": "a block must have 1 to 1024 threads, at most 64 of them along z, got 1025 x 1 x 1",
    "shared bytes": "may have 232448 bytes of shared memory, got 232449",
    "grid": "a grid may have .* blocks, got 1 x 65536 x 1",
    "long grid": "a grid may have .* blocks, got 4294967296 x 1 x 1",
}


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("name", RIGHT)
def test_right_kernels_pass_in_every_order(name, order):
    with schedule(order):
        assert run_example(name) == ""


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_reported_with_their_place(name, order):
    with schedule(order):
        report = run_example(name)
    assert re.match(r"\w+, " + HERE, report), report
    assert re.search(FAULTS[name], report), report


@pytest.mark.parametrize("name", REFUSALS)
def test_launches_beyond_the_limits_are_refused(name):
    assert re.search(REFUSALS[name], run_example(name))


def test_a_report_does_not_outlive_its_launch():
    assert run_example("barrier of some") != ""
    assert run_example("barrier") == ""


def test_copies_arrive_when_they_are_waited_for():
    assert run_example("copy without waiting") == "wrong result"
