"""Compiles every CUDA kernel for Hopper, warnings as errors, and writes docs/kernels.md.

The torch shells of the CUDA library are checked along.  Needs nvcc but neither a GPU nor a CUDA
build of torch; says so and succeeds where nvcc is missing.  Fails where a
kernel keeps registers in memory ("spills"), unless SPILLS names it with a reason.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "kernels"
PAGE = ROOT / "docs" / "kernels.md"
# Kernel name -> why its spills cost nothing that matters.
SPILLS: dict[str, str] = {}


@dataclass(frozen=True)
class Kernel:
    """What ptxas says about one instance of a kernel."""

    source: str
    name: str
    registers: int
    shared: int  # bytes, without dynamic shared memory
    stack: int  # bytes
    spilled: int  # bytes stored


def contracted() -> set[str]:
    """Return the files that are compiled with fused multiply-add, as setup.py names them."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CONTRACTED":
            return set(ast.literal_eval(node.value))
    raise SystemExit("compile_kernels: setup.py has no list CONTRACTED")


def compile_source(source: Path, fused: set[str]) -> str:
    """Compile one file unless that was done since its last change; return what ptxas said."""
    target = (BUILD / source.relative_to(ROOT)).with_suffix(".o")
    report = target.with_suffix(".txt")
    listing = target.with_suffix(".d")
    if report.exists() and listing.exists():
        files = listing.read_text().replace("\\\n", " ").split(":", 1)[1].split()
        newest = max((ROOT / file).stat().st_mtime_ns for file in files if (ROOT / file).exists())
        newest = max(newest, (ROOT / "setup.py").stat().st_mtime_ns)
        if newest < report.stat().st_mtime_ns:
            return report.read_text()
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-arch=sm_90", "-std=c++17", "-O3", "--expt-relaxed-constexpr", "-Icsrc"]
    flags += [f"--fmad={'true' if source.stem in fused else 'false'}", "-Werror", "all-warnings"]
    flags += ["-Xptxas", "-v", "-MD", "-MF", str(listing), "-c", str(source.relative_to(ROOT))]
    done = subprocess.run(
        ["nvcc", *flags, "-o", str(target)], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"compile_kernels: {source.relative_to(ROOT)}\n{done.stderr}{done.stdout}")
    report.write_text(done.stderr + done.stdout)
    return report.read_text()


def check_shell(source: Path) -> None:
    """Compile a torch shell as the CUDA library has it, without writing anything."""
    from torch.utils.cpp_extension import include_paths

    flags = ["-std=c++17", "-Icsrc", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    flags += ["-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-fsyntax-only"]
    flags += [flag for path in include_paths() for flag in ("-isystem", path)]
    compiler = os.environ.get("CXX", "g++")
    done = subprocess.run([compiler, *flags, str(source)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"compile_kernels: {source.relative_to(ROOT)}\n{done.stderr}")


def read_report(source: str, report: str) -> list[Kernel]:
    """Turn ptxas's lines into kernels; those of CUB are NVIDIA's own and left out."""
    demangled = subprocess.run(["c++filt"], input=report, capture_output=True, text=True).stdout
    kernels, name, stack, spilled = [], "", 0, 0
    for line in demangled.splitlines():
        if found := re.search(r"Function properties for (.*)", line):
            name = kernel_name(found[1])
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", line):
            stack, spilled = int(found[1]), int(found[2])
        elif (found := re.search(r"Used (\d+) registers", line)) and "cub::" not in name:
            shared = re.search(r"(\d+) bytes smem", line)
            bytes_shared = int(shared[1]) if shared else 0
            kernels.append(Kernel(source, name, int(found[1]), bytes_shared, stack, spilled))
    return kernels


def kernel_name(signature: str) -> str:
    """Return the plain name of a demangled kernel: no arguments, no namespaces of ours."""
    name = re.sub(
        r"\(anonymous namespace\)::|_GLOBAL__N__\w+::|perception3d::|cuda::", "", signature
    )
    name = name.split("(", 1)[0].removeprefix("void ")
    return name if "cub::" in name else name.split("<", 1)[0]


def render(kernels: list[Kernel], compiler: str) -> str:
    """Return the page: one line for each kernel, all its instances together."""
    groups: dict[tuple[str, str], list[Kernel]] = {}
    for kernel in sorted(kernels, key=lambda kernel: (kernel.source, kernel.name)):
        groups.setdefault((kernel.source, kernel.name), []).append(kernel)
    lines = [
        "# Kernels",
        "",
        "What ptxas says about every kernel, compiled for sm_90. Written by `make lint`",
        f"(`tools/compile_kernels.py`), never by hand; this time with nvcc {compiler}. A kernel",
        "has an instance for each type and vector width. Shared memory is that of `P3D_SHARED`;",
        "kernels that use `dynamic_shared` get more at launch. The kernels of CUB behind",
        "`csrc/cuda/device_sort.cu` are not listed.",
        "",
        "| file | kernel | instances | registers | shared bytes | stack bytes | spilled bytes |",
        "|---|---|---|---|---|---|---|",
    ]
    for (source, name), group in groups.items():
        numbers = [
            span([getattr(kernel, field) for kernel in group])
            for field in ("registers", "shared", "stack", "spilled")
        ]
        lines.append(f"| {source} | {name} | {len(group)} | {' | '.join(numbers)} |")
    lines += [""] + [f"Spills of `{name}`: {reason}" for name, reason in SPILLS.items()]
    return "\n".join(lines).rstrip() + "\n"


def span(values: list[int]) -> str:
    """Write the smallest and the largest value."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def main() -> int:
    """Compile, write the page, name spills."""
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    if shutil.which("nvcc") is None:
        print(f"compile_kernels: nvcc not found, {len(sources)} kernel files not compiled")
        return 0
    fused = contracted()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        reports = list(pool.map(lambda source: compile_source(source, fused), sources))
        list(pool.map(check_shell, sorted((ROOT / "csrc" / "binding" / "cuda").glob("*.cpp"))))
    kernels = []
    for source, report in zip(sources, reports, strict=True):
        kernels += read_report(source.relative_to(ROOT / "csrc" / "cuda").as_posix(), report)
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    page = render(kernels, re.search(r"release ([\d.]+)", version)[1])
    if not PAGE.exists() or PAGE.read_text() != page:
        PAGE.write_text(page)
        print(f"compile_kernels: wrote {PAGE.relative_to(ROOT)}")
    spilling = {kernel.name for kernel in kernels if kernel.spilled > 0} - set(SPILLS)
    for name in sorted(spilling):
        print(f"compile_kernels: {name} spills registers; see {PAGE.relative_to(ROOT)}")
    print(f"compile_kernels: {len(sources)} files, {len(kernels)} kernels compiled for sm_90")
    return 1 if spilling else 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.exit(main())
