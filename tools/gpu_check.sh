#!/usr/bin/env bash
# Everything that needs a CUDA device: build, tests marked gpu, parity, benchmark.
# PYTHON   interpreter with torch, numpy and pytest; nothing else is needed for the operators
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
golden=${P3D_GOLDEN:-../shared/golden}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

name=$("$python" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")') || exit 1
[ -n "$name" ] || { echo "gpu-check: no CUDA device (torch.cuda.is_available() is false)" >&2; exit 1; }
echo "gpu-check: $name"
failed=0
step() {
  echo "gpu-check: $*"
  "$@" || { failed=1; echo "gpu-check: FAILED: $*" >&2; }
}

step "$python" setup.py build_ext --inplace
tests=(tests/ops tests/layers tests/models tests/parity)
if "$python" -c 'import mmengine' 2> /dev/null; then
  tests+=(tests/engine)
else
  echo "gpu-check: skipped tests/engine: mmengine is not installed"
fi
step "$python" -m pytest -m gpu "${tests[@]}"
if [ -d "$golden" ]; then
  for system in dsvt detection; do
    step "$python" tools/check_parity.py "$golden/$system" --device cuda
  done
else
  echo "gpu-check: skipped parity: no golden vectors at $golden (P3D_GOLDEN)"
fi
if command -v compute-sanitizer > /dev/null; then
  step compute-sanitizer --error-exitcode 1 "$python" -m pytest -m gpu tests/ops
else
  echo "gpu-check: skipped compute-sanitizer: not found"
fi
mkdir -p benchmarks/results
slug=$(echo "$name" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
step "$python" tools/benchmark_ops.py --device cuda --json "benchmarks/results/$slug-$(date +%F).json"
exit $failed
