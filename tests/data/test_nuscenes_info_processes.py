"""Building info files in several processes, and after a kill."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from perception3d.data import nuscenes_info
from perception3d.data.nuscenes_info import build_info_files
from perception3d.data.nuscenes_tables import TableOptions

REPOSITORY = Path(nuscenes_info.__file__).resolve().parents[2]


def test_processes_give_the_same_bytes(tiny, tiny_infos, tmp_path):
    again = build_info_files(TableOptions(tiny.root, tiny.version), tmp_path, workers=2)
    for one, two in zip(tiny_infos, again, strict=True):
        assert one.path.read_bytes() == two.path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(s.path.name for s in again)


BUILD = """
import os, signal, sys
from pathlib import Path
from perception3d.data import nuscenes_info
from perception3d.data.nuscenes_tables import TableOptions

made, make = [], nuscenes_info._make_shard

def make_and_die(task):
    if len(made) == {scenes}:
        os.kill(os.getpid(), signal.SIGKILL)
    make(task)
    made.append(task.scene_name)

nuscenes_info._make_shard = make_and_die
nuscenes_info.build_info_files(
    TableOptions(Path({root!r}), {version!r}, {sweeps}), Path({out!r}), splits={splits}
)
print(",".join(made))
"""


def build_in_process(data, out, *, scenes, sweeps=10):
    """Build in another process that kills itself after some scenes; returns it."""
    code = BUILD.format(
        root=str(data.root),
        version=data.version,
        out=str(out),
        scenes=scenes,
        sweeps=sweeps,
        splits=("mini_train",),
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )


def test_killed_run_goes_on_where_it_was(tiny, tiny_infos, tmp_path):
    killed = build_in_process(tiny, tmp_path, scenes=1)
    assert killed.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("*.jsonl"))
    other_options = build_in_process(tiny, tmp_path, scenes=9, sweeps=3)
    assert other_options.stdout.strip() == "scene-0061,scene-0553"
    (tmp_path / "nuscenes_infos_mini_train.jsonl").unlink()
    resumed = build_in_process(tiny, tmp_path, scenes=9)
    assert resumed.stdout.strip() == "scene-0553"
    result = tmp_path / "nuscenes_infos_mini_train.jsonl"
    assert result.read_bytes() == tiny_infos[0].path.read_bytes()
    assert list(tmp_path.iterdir()) == [result]


def test_workers_end_with_a_killed_parent(tmp_path):
    code = textwrap.dedent("""
        import os, time
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context
        from perception3d.data.process import end_with_parent

        pool = ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=end_with_parent
        )
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(60)
    """)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def alive():
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        return state != "Z"

    deadline = time.monotonic() + 20
    while alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive()
