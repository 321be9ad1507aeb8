"""`python -m perception3d.doctor`: what is installed, what is missing, and the next command.

Exit code 0 if everything that training needs is there, 1 otherwise. Optional parts do not count.
Nothing of perception3d that needs torch is imported before torch was found to work.
"""

import ctypes
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Shared libraries that the open3d wheel links or renders with, and their Debian packages.
OPEN3D_LIBRARIES = {
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libudev.so.1": "libudev1",
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libidn2.so.0": "libidn2-0",
    "libgomp.so.1": "libgomp1",
    "libvulkan.so.1": "libvulkan1",
}
SPCONV = ("spconv-cu126", "spconv-cu120", "spconv-cu124", "spconv-cu118", "spconv")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: "ok", "missing" (needed), "absent" (optional) or "note" (works, but read it).
        name: what was looked at.
        text: what was found.
        command: what to do next; empty where nothing is to be done.
    """

    state: str
    name: str
    text: str
    command: str = ""


def version_of(distribution: str) -> str | None:
    """Return the version of an installed distribution, None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def at_least(version: str, wanted: str) -> bool:
    """Compare the leading numbers of two versions."""

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split("+")[0].split(".")[:3] if part.isdigit()]

    return numbers(version) >= numbers(wanted)


def _python() -> Iterator[Finding]:
    found = sys.version.split()[0]
    good = (3, 10) <= sys.version_info[:2] <= (3, 12)
    command = "" if good else "use Python 3.11 or 3.12: make setup PYTHON=python3.11"
    yield Finding("ok" if good else "note", "python", found, command)


def _needed(name: str, wanted: str, extra: str = "") -> Finding:
    found = version_of(name)
    command = f"pip install '{name}>={wanted}'"
    if found is None:
        return Finding("missing", name, f"not installed{extra}", command)
    if not at_least(found, wanted):
        return Finding("missing", name, f"{found}, needs {wanted} or later{extra}", command)
    return Finding("ok", name, found)


def _torch() -> Iterator[Finding]:
    finding = _needed("torch", "2.10")
    yield finding
    if finding.state != "ok":
        return
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("missing", "torch import", str(error), "pip install --force-reinstall torch")
        return
    yield from _cuda(torch.version.cuda, torch.cuda.is_available(), torch.cuda.device_count())
    yield from _native(torch.cuda.is_available())
    threads = os.environ.get("OMP_NUM_THREADS")
    yield Finding(
        "ok" if threads else "note",
        "OMP_NUM_THREADS",
        threads or f"not set: {torch.get_num_threads()} threads; on a busy CPU they can spin",
        "" if threads else "export OMP_NUM_THREADS=1 if small steps take seconds on a busy CPU",
    )


def _cuda(built_for: str | None, available: bool, count: int) -> Iterator[Finding]:
    if available:
        import torch

        names = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
        yield Finding("ok", "CUDA", f"{count} device(s): {names}; torch is built for {built_for}")
    elif built_for is None:
        yield Finding("absent", "CUDA", "torch is a CPU build; everything runs on the CPU")
    else:
        yield Finding(
            "absent",
            "CUDA",
            f"torch is built for CUDA {built_for} but sees no device; everything runs on the CPU",
            "nvidia-smi shows whether the driver works",
        )


def _native(cuda: bool) -> Iterator[Finding]:
    try:
        importlib.import_module("perception3d.ops.library").load_library()
    except ImportError as error:
        build = "python setup.py build_ext --inplace   (in the checkout; or: make setup)"
        yield Finding("missing", "native operators", str(error), build)
        return
    yield Finding("ok", "native operators", "CPU library loaded")
    if cuda and not (ROOT / "perception3d" / "_C_cuda.abi3.so").exists():
        yield Finding(
            "note",
            "CUDA operators",
            "not built; without them networks run on the CPU only",
            "P3D_CUDA=1 python setup.py build_ext --inplace",
        )


def _packages() -> Iterator[Finding]:
    for name, wanted in (
        ("numpy", "1.26"),
        ("scipy", "1.11"),
        ("mmengine", "0.10.7"),
        ("rich", "13"),
        ("tqdm", "4.66"),
    ):
        yield _needed(name, wanted)
    yield _needed("nuscenes-devkit", "1.2.0", "; resolvers step back to 1.1.9 to get numpy 2")
    devkit, numpy = version_of("nuscenes-devkit"), version_of("numpy")
    if devkit and numpy and at_least(numpy, "2.0"):
        text = f"nuscenes-devkit {devkit} asks for numpy < 2, found {numpy}; it was seen to work"
        yield Finding("note", "numpy and devkit", text)
    both = [n for n in ("opencv-python", "opencv-python-headless") if version_of(n)]
    versions = {version_of(name) for name in both}
    if len(both) == 2 and len(versions) == 2:
        yield Finding(
            "note",
            "opencv",
            "opencv-python and -headless of different versions write one cv2 folder",
            f"pip install --force-reinstall 'opencv-python-headless=={version_of(both[0])}'",
        )


def _spconv() -> Iterator[Finding]:
    found = [(name, version_of(name)) for name in SPCONV if version_of(name)]
    new = "spconv-cu126" if sys.version_info >= (3, 12) else "spconv-cu120"
    if not found:
        text = "not installed; on GPUs our own operators convolve, where its are tuned"
        yield Finding("absent", "spconv", text, f"pip install {new}")
    elif len(found) > 1:
        names = " ".join(name for name, _ in found)
        yield Finding(
            "note",
            "spconv",
            f"{len(found)} packages share one folder: {names}",
            f"pip uninstall -y {names} && pip install {new}",
        )
    elif found[0][0] == "spconv":
        yield Finding(
            "note",
            "spconv",
            f"{found[0][1]}, the CPU-only package, which nothing uses: on GPUs another is tuned",
            f"pip uninstall -y spconv && pip install {new}",
        )
    else:
        yield Finding("ok", found[0][0], str(found[0][1]))


def _open3d() -> Iterator[Finding]:
    found = version_of("open3d") or version_of("open3d-cpu")
    if found is None:
        text = "not installed; 3D pictures and the simulator need it"
        yield Finding("absent", "open3d", text, "pip install open3d==0.20.0")
        return
    if not at_least(found, "0.20"):
        text = f"{found} ends the process when it renders without a display"
        yield Finding("note", "open3d", text, "pip install open3d==0.20.0")
    else:
        yield Finding("ok", "open3d", found)
    missing = [package for name, package in OPEN3D_LIBRARIES.items() if not _loads(name)]
    if not list(Path("/usr/share/vulkan/icd.d").glob("*.json")):
        missing.append("mesa-vulkan-drivers")
    if missing:
        packages = " ".join(missing)
        text = f"missing for 3D pictures: {packages}"
        yield Finding("note", "open3d libraries", text, f"apt-get install {packages}")
    else:
        yield Finding("ok", "open3d libraries", "all found")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _optional() -> Iterator[Finding]:
    for name, purpose in (("tensorboard", "training curves"), ("laspy", ".las clouds")):
        found = version_of(name)
        if found:
            yield Finding("ok", name, found)
        else:
            yield Finding("absent", name, f"not installed; for {purpose}", f"pip install {name}")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _torch,
    _packages,
    _spconv,
    _open3d,
    _optional,
)


def examine() -> list[Finding]:
    """Look at everything."""
    return [finding for check in CHECKS for finding in check()]


def report(findings: list[Finding]) -> str:
    """Write findings as aligned lines; the last line says what to do first."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:8s} {finding.name:18s} {finding.text}")
        if finding.command:
            lines.append(f"{'':27s} -> {finding.command}")
    needed = [f for f in findings if f.state == "missing"]
    if needed:
        lines.append(f"next: {needed[0].command}")
    else:
        lines.append("everything needed is there; next: make demo")
    return "\n".join(lines)


def main() -> int:
    """Print the report."""
    findings = examine()
    print(report(findings))
    return int(any(finding.state == "missing" for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
