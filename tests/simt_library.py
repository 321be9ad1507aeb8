"""Builds and loads the library whose CUDA kernels run on the interpreter of csrc/testing.

    simt = load_simt_library()
    simt.segment_sum(values, order, offsets, False)   # the CUDA kernel, on CPU tensors

Objects are kept in build/simt and compiled again only when a file that they include has changed.
"""

import ctypes
import fcntl
import os
import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths, library_paths

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "simt"
LIBRARY = BUILD / f"perception3d_simt-{torch.__version__}.so"
FLAGS = [
    "-std=c++17",
    "-O1",
    "-g1",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-error=maybe-uninitialized",  # guesses, wrongly at times, in instrumented code
    "-DP3D_SIMT",
    "-DTORCH_TARGET_VERSION=0x020a000000000000",
    f"-I{ROOT / 'csrc'}",
    *[flag for path in include_paths() for flag in ("-isystem", path)],
]
# Kernels are compiled so that every load and store is checked; see csrc/testing/memory_check.h.
# nvcc, too, is silent about signs and reads pragmas of its own.
KERNEL_FLAGS = ["-x", "c++", "-fsanitize=thread", "-Wno-sign-compare", "-Wno-unknown-pragmas"]


def _sources() -> list[Path]:
    csrc = ROOT / "csrc"
    shells = [csrc / "binding" / "library.cpp", *sorted((csrc / "binding" / "cuda").glob("*.cpp"))]
    return list(dict.fromkeys([*shells, *_kernels(), *sorted((csrc / "testing").glob("*.cpp"))]))


def _kernels() -> list[Path]:
    examples = ROOT / "csrc" / "testing" / "simt_examples.cpp"
    return [*sorted((ROOT / "csrc" / "cuda").glob("*.cu")), examples]


def _is_current(target: Path) -> bool:
    """Say whether `target` is newer than all files that it was made from."""
    listing = target.with_suffix(".d")
    if not target.exists() or not listing.exists():
        return False
    files = listing.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    made = target.stat().st_mtime_ns
    inputs = [Path(__file__), *(ROOT / file for file in files)]
    return all(file.exists() and file.stat().st_mtime_ns < made for file in inputs)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"failed: {shlex.join(command)}\n{done.stderr[:8000]}")


def _compile(source: Path) -> tuple[Path, bool]:
    """Return the object of `source` and whether it had to be made."""
    kernel = source in _kernels()
    target = (BUILD / torch.__version__ / source.relative_to(ROOT)).with_suffix(".o")
    if _is_current(target):
        return target, False
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [os.environ.get("CXX", "g++"), *FLAGS, *(KERNEL_FLAGS if kernel else [])]
    _run([*command, "-MMD", "-c", str(source.relative_to(ROOT)), "-o", str(target)])
    return target, True


@cache
def _build_once() -> Path | RuntimeError:
    """Build once a process, so that a source that does not compile is not tried for each test."""
    try:
        return build_simt_library()
    except RuntimeError as error:
        return error


def _built_library() -> Path:
    built = _build_once()
    if isinstance(built, RuntimeError):
        raise built
    return built


def build_simt_library() -> Path:
    """Compile what has changed and link; safe when several processes do it at once."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            made = list(pool.map(_compile, _sources()))
        objects = [str(target) for target, _ in made]
        listing = LIBRARY.with_suffix(".objects")
        known = listing.read_text() if listing.exists() else ""
        if not LIBRARY.exists() or known != "\n".join(objects) or any(new for _, new in made):
            fresh = LIBRARY.with_suffix(".new")
            search = [f"-L{path}" for path in library_paths()]
            link = ["-shared", "-Wl,-z,defs", *objects, *search, "-ltorch_cpu", "-lc10"]
            _run([os.environ.get("CXX", "g++"), *link, "-o", str(fresh)])
            fresh.replace(LIBRARY)  # a process that has the old file loaded keeps it
            listing.write_text("\n".join(objects))
    return LIBRARY


@cache
def load_simt_library():
    """Return torch's namespace of the operators on the interpreter."""
    torch.ops.load_library(_built_library())
    return torch.ops.perception3d_simt


@cache
def _functions() -> ctypes.CDLL:
    functions = ctypes.CDLL(str(_built_library()))
    functions.p3d_simt_run_example.restype = ctypes.c_char_p
    return functions


def run_example(name: str) -> str:
    """Run a kernel of csrc/testing/simt_examples.cpp; return the report, empty if all is well."""
    load_simt_library()
    return (_functions().p3d_simt_run_example(name.encode()) or b"").decode()


@contextmanager
def schedule(number: int) -> Iterator[None]:
    """Let blocks, warps and lanes run in another order: 0 ascending, 1 descending, n shuffled."""
    load_simt_library()
    _functions().p3d_simt_set_schedule(number)
    try:
        yield
    finally:
        _functions().p3d_simt_set_schedule(0)
