"""Build of the native operators: one library for the CPU and, where CUDA is present, a second one.

Nothing here imports torch until an extension is built, so metadata can be read anywhere.
Environment: P3D_CUDA=1 demands the CUDA library, P3D_CUDA=0 leaves it out, P3D_DEBUG=1 adds
run-time assertions and debug symbols, TORCH_CUDA_ARCH_LIST chooses GPU architectures.
"""

import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
CSRC = Path("csrc")
# Version 2.10 of torch's stable C++ interface: the library then loads under every later torch.
TORCH_TARGET = "0x020a000000000000"
DEFAULT_CUDA_ARCHITECTURES = "8.0;8.6;8.9;9.0+PTX"


def list_sources(*folders: str) -> list[str]:
    """Return the C++ and CUDA files of some folders of csrc: a new operator only adds files."""
    return [
        path.as_posix()
        for folder in folders
        for path in sorted((CSRC / folder).glob("*.c*"))
        if path.suffix in (".cpp", ".cu")
    ]


class BuildNative(build_ext):
    """Compile against the LibTorch stable ABI, several files at a time."""

    def build_extension(self, ext: Extension) -> None:
        """Compile what is out of date and link `ext`."""
        from torch.utils.cpp_extension import include_paths, library_paths

        cuda = ext.name.endswith("_cuda")
        device = "cuda" if cuda else "cpu"
        includes = [f"-I{ROOT / CSRC}", *(f"-isystem{path}" for path in include_paths(device))]
        headers = [path for path in CSRC.rglob("*") if path.suffix in (".h", ".cuh")]
        newest_header = max((path.stat().st_mtime for path in headers), default=0.0)

        def compile_source(source: str) -> str:
            target = (ROOT / self.build_temp / source).with_suffix(".o")
            target.parent.mkdir(parents=True, exist_ok=True)
            newest = max(
                newest_header, Path(source).stat().st_mtime, Path("setup.py").stat().st_mtime
            )
            if self.force or not target.exists() or target.stat().st_mtime < newest:
                command = self.command_of(source, cuda) + includes
                self.announce(" ".join([*command, "-c", source, "-o", str(target)]), level=2)
                subprocess.run([*command, "-c", source, "-o", str(target)], check=True)
            return str(target)

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            objects = list(pool.map(compile_source, ext.sources))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        search = [f"-L{path}" for path in library_paths(device)]
        libraries = ["-ltorch_cpu"] + (["-ltorch_cuda", "-lcudart"] if cuda else [])
        # Not against libpython and not with a run path: torch is loaded before this library.
        subprocess.run(
            [self.compiler_of_host(), "-shared", "-fopenmp", *objects, *search, *libraries]
            + ["-o", str(target)],
            check=True,
        )

    def command_of(self, source: str, cuda: bool) -> list[str]:
        """Return compiler and flags for one file."""
        debug = os.environ.get("P3D_DEBUG") == "1"
        defines = [f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"] + (["-DUSE_CUDA"] if cuda else [])
        # No -ffast-math, and no fused multiply-add unless a kernel asks for it: results must not
        # depend on the machine.  The two "no" flags change no result: nobody reads errno or the
        # floating-point exception flags, which would forbid most vector loops with a condition.
        host = ["-fPIC", "-fopenmp", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"]
        host += ["-fno-math-errno", "-fno-trapping-math"]
        host += ["-g", "-D_GLIBCXX_ASSERTIONS"] if debug else ["-DNDEBUG"]
        if not source.endswith(".cu"):
            return [self.compiler_of_host(), "-std=c++17", "-O3", *host, *defines]
        return [
            find_nvcc(),
            "-std=c++17",
            "-O3",
            "--expt-relaxed-constexpr",
            "--fmad=false",
            "-Xcompiler",
            ",".join(host),
            *(["-DP3D_DEBUG"] if debug else []),
            *defines,
            *architecture_flags(),
        ]

    @staticmethod
    def compiler_of_host() -> str:
        """Return the C++ compiler, CXX or g++."""
        return os.environ.get("CXX", "g++")


def find_nvcc() -> str:
    """Return the CUDA compiler, from CUDA_HOME or the search path, or an empty string."""
    home = os.environ.get("CUDA_HOME")
    beside = Path(home) / "bin" / "nvcc" if home else None
    return str(beside) if beside and beside.exists() else shutil.which("nvcc") or ""


def architecture_flags() -> list[str]:
    """Turn TORCH_CUDA_ARCH_LIST ("8.0;9.0+PTX") into nvcc flags."""
    flags = []
    names = os.environ.get("TORCH_CUDA_ARCH_LIST", DEFAULT_CUDA_ARCHITECTURES)
    for name in names.replace(" ", ";").split(";"):
        number = name.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if name.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def cuda_is_wanted() -> bool:
    """Say whether to build the CUDA library; P3D_CUDA=1 without nvcc ends the build."""
    choice = os.environ.get("P3D_CUDA", "")
    if choice == "1" and not find_nvcc():
        raise SystemExit("P3D_CUDA=1, but nvcc was found neither in CUDA_HOME nor on PATH")
    if choice in ("0", "1") or not find_nvcc():
        return choice == "1"
    try:
        import torch
    except ImportError:  # only metadata is being read
        return False
    return torch.version.cuda is not None


class BuildAll(BuildNative):
    """Add the CUDA library when it can be built, then build."""

    def run(self) -> None:
        """Build the libraries in place or into the build folder."""
        if platform.system() != "Linux":
            raise SystemExit(f"perception3d builds on Linux, this is {platform.system()}")
        super().run()

    def finalize_options(self) -> None:
        """List the libraries to build."""
        super().finalize_options()
        cuda_sources = list_sources("cuda", "binding/cuda")
        if cuda_sources and cuda_is_wanted():
            self.extensions.append(
                Extension("perception3d._C_cuda", cuda_sources, py_limited_api=True)
            )


setup(
    ext_modules=[
        Extension(
            "perception3d._C",
            list_sources("binding", "binding/cpu", "cpu"),
            py_limited_api=True,
        )
    ],
    cmdclass={"build_ext": BuildAll},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
