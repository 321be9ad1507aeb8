#!/usr/bin/env python3
"""Make a small synthetic data set, train a detector on it, test it, and draw what it sees.

Every step is one of the commands a user would type; this file only calls them in order, measures
them, and gathers the result in WORK_DIR/metrics.json.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
CONFIGS = TOOLS.parent / "configs"
MODELS = {
    name: CONFIGS / name / f"{name}_demo.py" for name in ("dsvt", "scatterformer", "voxel_mamba")
}
VERSION = "v1.0-synthetic"


def steps(model: str, work_dir: Path, workers: int) -> dict[str, list[str]]:
    """Return the commands of the demo, by name, in order."""
    config, data = str(MODELS[model]), str(work_dir / "data")
    checkpoint, results = str(work_dir / "last.pth"), str(work_dir / "test")
    options = ["--cfg-options", f"data_root={data}"]
    python = [sys.executable]
    return {
        "simulate": python
        + [str(TOOLS / "create_data.py"), "synthetic", "--out-dir", data, "--overwrite"]
        + ["--scenes", "24", "--val-scenes", "4", "--frames-per-scene", "8"]
        + ["--sweeps-per-keyframe", "4", "--images", "val", "--no-occupancy"]
        + ["--workers", str(workers)],
        "prepare": python
        + [str(TOOLS / "create_data.py"), "nuscenes", "--root-path", data, "--out-dir", data]
        + ["--version", VERSION, "--workers", str(workers)],
        "train": python
        + [str(TOOLS / "train.py"), config, "--work-dir", str(work_dir), "--seed", "0"]
        + options,
        "test": python + [str(TOOLS / "test.py"), config, checkpoint, "--out", results] + options,
        "draw": python
        + [str(TOOLS / "visualize.py"), config, "--mode", "pred", "--checkpoint", checkpoint]
        + ["--split", "val", "--frames", "3", "--out-dir", str(work_dir)]
        + options,
    }


def main() -> int:
    """Run the demo; the exit code is that of the first step that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="dsvt", choices=sorted(MODELS))
    parser.add_argument("--work-dir", type=Path, default=TOOLS.parent / "work_dirs" / "demo")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    # Threads that wait actively repay on a machine that the demo has to itself.
    environment = {"OMP_WAIT_POLICY": "ACTIVE", **os.environ}
    seconds: dict[str, float] = {}
    for name, command in steps(args.model, args.work_dir, args.workers).items():
        print(f"\n[{name}] {shlex.join(command)}", flush=True)
        start = time.perf_counter()
        code = subprocess.run(command, env=environment, check=False).returncode
        if code:
            print(f"run_demo: step '{name}' failed, see above", file=sys.stderr)
            return code
        seconds[name] = round(time.perf_counter() - start, 1)
    figures = json.loads((args.work_dir / "test" / "metrics.json").read_text())
    seconds["total"] = round(sum(seconds.values()), 1)
    result = {"mAP": figures["mAP"], "NDS": figures["NDS"], "per_class": figures["per_class"]}
    target = args.work_dir / "metrics.json"
    target.write_text(json.dumps({**result, "seconds": seconds}, indent=2) + "\n")
    print(f"\nmAP {result['mAP']:.3f}  NDS {result['NDS']:.3f}  in {seconds['total']:.0f} s")
    print(f"figures in {target}, pictures beside it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
