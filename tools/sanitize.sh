#!/usr/bin/env bash
# Runs the operators with their CPU library built for AddressSanitizer and UndefinedBehaviorSanitizer:
# accesses outside of tensors and buffers, overflow, bad shifts and conversions end the run.  New
# memory is filled with NaN patterns, so that a result that was not written fails its test.
#   usage: sanitize.sh [PYTEST ARGUMENT ...]     default: tests/ops and the benchmark's rows on tiny
# PYTHON   interpreter with the requirements
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${PYTHON:-.venv/bin/python}")
out=build/sanitize
compiler=${CXX:-g++}

P3D_SANITIZE=1 P3D_CUDA=0 "$python" setup.py -q build_py --build-lib "$out/lib" \
  build_ext --build-lib "$out/lib" --build-temp "$out/objects"

# The sanitizer must be the first library of the process, libstdc++ the second: it wraps what throws.
preload=$("$compiler" -print-file-name=libasan.so):$("$compiler" -print-file-name=libstdc++.so.6)
# Python and torch keep memory to the end of the process, so leaks are not looked for.
asan=detect_leaks=0:detect_stack_use_after_return=1:max_malloc_fill_size=1073741824:malloc_fill_byte=255
run() {
  env PYTHONPATH="$PWD/$out/lib" LD_PRELOAD="$preload" ASAN_OPTIONS="$asan" \
    UBSAN_OPTIONS="print_stacktrace=1" OMP_NUM_THREADS=2 "$python" -P "$@"
}
# -P keeps this folder, with its library that is not instrumented, from the search path.
run -c "
import perception3d.ops.library as library
found = library.FOLDER / '_C.abi3.so'
assert found.is_relative_to('$PWD/$out'), found
assert b'__asan_report_load' in found.read_bytes(), 'the library is not instrumented'
"
tests=("$@")
((${#tests[@]})) || tests=(tests/ops tests/benchmark/test_benchmark_run.py)
# Not captured by file descriptor: what a dying process prints must not be held back.
run -m pytest -p no:cacheprovider --capture=sys "${tests[@]}"
