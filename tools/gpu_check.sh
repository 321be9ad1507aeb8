#!/usr/bin/env bash
# Everything that needs a CUDA device: build, tests on both devices, parity, compute-sanitizer, benchmark.
# PYTHON         interpreter with torch (a CUDA build), numpy, pytest and setuptools: enough for the
#                operators; what needs more is skipped by name
# P3D_GOLDEN     folder of the golden vectors, default ../shared/golden
# P3D_WORKLOADS  clouds of the benchmark, default all
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
golden=${P3D_GOLDEN:-../shared/golden}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

name=$("$python" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")') || exit 1
[ -n "$name" ] || { echo "gpu-check: no CUDA device (torch.cuda.is_available() is false)" >&2; exit 1; }
echo "gpu-check: $name"
failed=()
step() {
  echo "gpu-check: $*"
  "$@" || { failed+=("$*"); echo "gpu-check: FAILED: $*" >&2; }
}
# Says whether all modules are there, or which one is missing for what.
have() {
  local what=$1 module
  shift
  for module in "$@"; do
    "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$module') is None)" || {
      echo "gpu-check: skipped $what: $module is not installed"
      return 1
    }
  done
}

: "${TORCH_CUDA_ARCH_LIST:=$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')}"
export TORCH_CUDA_ARCH_LIST
step env P3D_CUDA=1 "$python" setup.py build_ext --inplace

# Every native call of the operators' tests once more on the GPU, compared with the CPU; then the tests
# that are about the GPU.
step "$python" -m pytest tests/ops --shadow cuda
tests=(tests/simt tests/ops tests/benchmark tests/layers tests/models)
have "the comparison with spconv" spconv
have tests/parity scipy nuscenes && tests+=(tests/parity)
have tests/engine mmengine nuscenes rich && tests+=(tests/engine)
step "$python" -m pytest -m gpu "${tests[@]}"

if [ -d "$golden" ]; then
  step "$python" tools/check_parity.py "$golden" --device cuda --known
else
  echo "gpu-check: skipped parity: no golden vectors at $golden (P3D_GOLDEN)"
fi

sanitizer=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}"/bin/compute-sanitizer 2> /dev/null)
if [ -n "$sanitizer" ]; then # without torch's cache, so that every tensor is a memory block of its own
  for tool in memcheck racecheck; do
    step env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool $tool --error-exitcode 1 \
      "$python" -m pytest -m gpu tests/benchmark -k tiny
  done
else
  echo "gpu-check: skipped compute-sanitizer: not found"
fi

mkdir -p benchmarks/results
slug=$(echo "$name" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
json=benchmarks/results/$slug-$(date +%F).json
# shellcheck disable=SC2086  # a list of names
step "$python" tools/benchmark_ops.py --device cuda ${P3D_WORKLOADS:+--workload $P3D_WORKLOADS} --json "$json"

if ((${#failed[@]})); then
  printf 'gpu-check: FAILED: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "gpu-check: all passed, benchmark in $json"
