"""Memory of freed results: kept for the next ones, never for two at once."""

import os
import pickle
import subprocess
import sys
import threading

import pytest
import torch

from perception3d.ops import linear

LARGE = 40_000  # rows; of 64 float32 that makes 10 MB
COLUMNS = 64
WEIGHT = torch.eye(COLUMNS)

# tools/sanitize.sh: nothing is kept there, so that nobody writes to a freed result unnoticed.
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")
# The way to hand memory to torch together with what frees it came with torch 2.11.
keeps_memory = pytest.mark.skipif(
    SANITIZED or torch.__version__ < (2, 11),
    reason="results are kept with torch 2.11 and later, not under sanitizers",
)


def result_of(rows: int, number: float = 1.0) -> torch.Tensor:
    """Return a large result, full of one number."""
    return linear(torch.full((rows, COLUMNS), number), WEIGHT)


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, *["-P"] * sys.flags.safe_path, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@keeps_memory
def test_the_next_result_of_like_size_takes_the_memory_of_a_freed_one():
    first = result_of(LARGE)
    place = first.data_ptr()
    del first
    for rows in (LARGE, LARGE - 1000, LARGE):
        again = result_of(rows, 2.0)
        assert again.data_ptr() == place
        assert torch.equal(again, torch.full((rows, COLUMNS), 2.0))
        del again
    assert result_of(LARGE // 4).data_ptr() != place


def test_living_results_and_views_of_them_keep_their_numbers():
    results = [result_of(LARGE, float(number)) for number in range(4)]
    views = [result[LARGE // 2 :].view(-1) for result in results]
    arrays = [result.numpy() for result in results]
    del results
    for number in range(4, 8):
        result_of(LARGE, float(number))
    for number, (view, array) in enumerate(zip(views, arrays, strict=True)):
        assert (view == number).all()
        assert (array == number).all()


def test_results_are_ordinary_tensors():
    result = result_of(LARGE, 3.0)
    assert result.is_contiguous()
    assert result.device == torch.device("cpu")
    assert torch.equal(pickle.loads(pickle.dumps(result)), result)
    shared = result_of(LARGE, 3.0).share_memory_()
    assert shared.is_shared()
    assert torch.equal(shared, result)
    with torch.inference_mode():
        assert result_of(LARGE).is_inference()
    rows = torch.ones(LARGE, COLUMNS, requires_grad=True)
    linear(rows, WEIGHT).add_(1).sum().backward()
    assert torch.equal(rows.grad, torch.ones(LARGE, COLUMNS))


def test_threads_take_and_give_back_at_once():
    wrong = []

    def work(number: float) -> None:
        for _ in range(20):
            result = result_of(LARGE, number)
            if not (result == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(float(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


SHOW = """
import torch
from perception3d.ops import linear
def used():
    fields = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)
    return int(fields["VmRSS"].split()[0]) // 1024
weight = torch.eye(64)
rows = torch.ones(400_000, 64)  # 98 MiB
linear(rows[:100], weight)
before = used()
for _ in range(4):
    results = [linear(rows, weight), linear(rows, weight)]
    del results
print(used() - before)
"""


@keeps_memory
@pytest.mark.parametrize(
    ("kept", "least", "most"), [("0", 0, 60), ("128", 60, 160), ("512", 160, 260)]
)
def test_no_more_is_kept_than_asked_for(kept, least, most):
    ended = run(SHOW, P3D_KEEP_MIB=kept)
    assert ended.returncode == 0, ended.stderr
    assert least <= int(ended.stdout) < most


@keeps_memory
@pytest.mark.parametrize("kept", ["much", "-1", "1.5", "", "99999999999999999"])
def test_a_limit_that_is_none_is_refused(kept):
    ended = run(SHOW, P3D_KEEP_MIB=kept)
    assert ended.returncode != 0
    assert "P3D_KEEP_MIB" in ended.stderr
    assert f"got '{kept}'" in ended.stderr


FORK = """
import os, torch
from perception3d.ops import linear
torch.set_num_threads(1)
weight = torch.eye(64)
rows = torch.ones(40_000, 64)
kept = linear(rows, weight)
linear(rows, weight)
child = os.fork()
right = bool((linear(2 * rows, weight) == 2).all() and (kept == 1).all())
if child == 0:
    os._exit(0 if right else 1)
_, status = os.waitpid(child, 0)
print(right and os.waitstatus_to_exitcode(status) == 0)
"""


def test_forked_processes_have_results_of_their_own():
    ended = run(FORK)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "True"
