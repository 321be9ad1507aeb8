"""Build of the native operators: one library for the CPU and, where CUDA is present, a second one.

Nothing here imports torch until an extension is built, so metadata can be read anywhere.
Environment: P3D_CUDA=1 demands the CUDA library, P3D_CUDA=0 leaves it out, P3D_DEBUG=1 adds
run-time assertions and debug symbols, P3D_SANITIZE=1 instruments the CPU library (see
tools/sanitize.sh), TORCH_CUDA_ARCH_LIST chooses GPU architectures.
"""

import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

ROOT = Path(__file__).parent.resolve()
CSRC = Path("csrc")
# Version 2.10 of torch's stable C++ interface: the library then loads under every later torch.
TORCH_TARGET = "0x020a000000000000"
DEFAULT_CUDA_ARCHITECTURES = "8.0;8.6;8.9;9.0+PTX"
# Kernels of real-valued products, where a fused multiply-add is twice as fast and more exact; their
# results agree between machines to rounding.  Index and geometry kernels never contract.
CONTRACTED = {
    "add_norm",
    "set_attention",
    "set_attention_backward",
    "set_transformer",
    "linear_attention_finish",
    "linear_attention_products",
    "scattered_linear_attention",
    "scattered_linear_attention_backward",
    "selective_scan",
    "selective_scan_backward",
    "causal_conv1d",
    "causal_conv1d_backward",
    "depthwise_conv",
    "gemm_tile",
    "linear",
    "linear_weight",
    "mamba_mixer",
    "subm_conv",
    "subm_conv_weight",
    "sparse_conv",
    "sparse_conv_weight",
}


# -fsanitize=undefined leaves out the conversion of numbers that do not fit an integer.
SANITIZERS = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]


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

        # CUDA's own headers and libraries are found by nvcc, which compiles and links then.
        cuda = ext.name.endswith("_cuda")
        includes = [f"-I{ROOT / CSRC}"]
        for path in include_paths():
            includes += ["-isystem", path]
        headers = [path for path in CSRC.rglob("*") if path.suffix in (".h", ".cuh")]
        newest_header = max((path.stat().st_mtime for path in headers), default=0.0)

        kind = "debug" if debug_is_wanted() else "release"
        objects_folder = ROOT / self.build_temp / ("sanitize" if sanitize_is_wanted() else kind)

        def compile_source(source: str) -> str:
            target = (objects_folder / source).with_suffix(".o")
            target.parent.mkdir(parents=True, exist_ok=True)
            newest = max(
                newest_header, Path(source).stat().st_mtime, Path("setup.py").stat().st_mtime
            )
            if self.force or not target.exists() or target.stat().st_mtime < newest:
                command = compile_command(cuda, Path(source).stem in CONTRACTED) + includes
                call(CompileError, [*command, "-c", source, "-o", str(target)])
            return str(target)

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            objects = list(pool.map(compile_source, ext.sources))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not against libpython and not with a run path: torch is loaded before this library.  The
        # CUDA runtime comes along: its version need not be that of torch's.
        link = [find_nvcc(), "-cudart=static", "-Xcompiler"] if cuda else [host_compiler()]
        libraries = ["-ltorch_cpu"] + (["-ltorch_cuda"] if cuda else [])
        search = [f"-L{path}" for path in library_paths()]
        checks = SANITIZERS if sanitize_is_wanted() and not cuda else []
        call(
            LinkError,
            [*link, *checks, "-fopenmp", "-shared", *objects, *search, *libraries]
            + ["-o", str(target)],
        )


def debug_is_wanted() -> bool:
    """Say whether P3D_DEBUG asks for run-time assertions."""
    return os.environ.get("P3D_DEBUG") == "1"


def sanitize_is_wanted() -> bool:
    """Say whether P3D_SANITIZE asks for checks of memory and undefined behaviour."""
    return os.environ.get("P3D_SANITIZE") == "1"


def compile_command(cuda: bool, contracted: bool) -> list[str]:
    """Return compiler and flags for a file of a library."""
    # No -ffast-math, and no fused multiply-add unless a kernel asks for it: results must not
    # depend on the machine.  The two "no" flags change no result: nobody reads errno or the
    # floating-point exception flags, which would forbid most vector loops with a condition.
    host = ["-fPIC", "-fopenmp", "-fvisibility=hidden", "-Wall", "-Wextra"]
    host += ["-fno-math-errno", "-fno-trapping-math"]
    host.append("-ffp-contract=fast" if contracted and not cuda else "-ffp-contract=off")
    host += ["-g", "-D_GLIBCXX_ASSERTIONS"] if debug_is_wanted() else ["-DNDEBUG"]
    if sanitize_is_wanted():
        host += ["-g", "-fno-omit-frame-pointer", "-D_GLIBCXX_ASSERTIONS", *SANITIZERS]
    level = "-O1" if sanitize_is_wanted() else "-O3"
    common = ["-std=c++17", level, f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"]
    if not cuda:
        return [host_compiler(), *common, *host]
    fused = f"--fmad={'true' if contracted else 'false'}"
    device = ["--expt-relaxed-constexpr", fused, *architecture_flags()]
    device += ["-DUSE_CUDA", *(["-DP3D_DEBUG"] if debug_is_wanted() else [])]
    return [find_nvcc(), "-ccbin", host_compiler(), *common, *device, "-Xcompiler", ",".join(host)]


def call(error: type[Exception], command: list[str]) -> None:
    """Run a compiler or linker, whose own messages go to the terminal."""
    if subprocess.run(command).returncode != 0:
        raise error(f"failed: {' '.join(command)}")


def host_compiler() -> str:
    """Return the C++ compiler, CXX or g++."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise CompileError(f"no C++ compiler {compiler!r}: install g++ >= 11, or set CXX")
    return compiler


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
    """Say whether to build the CUDA library: where nvcc and a CUDA torch are, or P3D_CUDA says."""
    choice = os.environ.get("P3D_CUDA", "")
    if choice == "0":
        return False
    try:
        import torch
    except ImportError:  # only metadata is being read
        return False
    missing = "nvcc" if not find_nvcc() else "a CUDA build of torch" * (torch.version.cuda is None)
    if choice == "1" and missing:
        raise SystemExit(f"P3D_CUDA=1, but {missing} was not found")
    return not missing


class BuildAll(BuildNative):
    """Add the CUDA library when it can be built, then build."""

    def run(self) -> None:
        """Build the libraries in place or into the build folder."""
        if platform.system() != "Linux":
            raise SystemExit(f"perception3d builds on Linux, this is {platform.system()}")
        super().run()

    def finalize_options(self) -> None:
        """List the libraries to build."""
        modules = self.distribution.ext_modules
        name, sources = "perception3d._C_cuda", list_sources("cuda", "binding/cuda")
        listed = any(extension.name == name for extension in modules)
        if sources and not listed and cuda_is_wanted():
            modules.append(Extension(name, sources, py_limited_api=True))
        super().finalize_options()


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
