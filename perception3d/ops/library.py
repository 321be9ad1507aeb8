"""Loads the native operators, once; the only place that explains a missing build."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch

FOLDER = Path(__file__).resolve().parents[1]
BUILD_COMMAND = "python setup.py build_ext --inplace"
Function = TypeVar("Function", bound=Callable[..., object])


def _load_file(path: Path, build_command: str) -> None:
    """Load one native library or raise an ImportError that names the build command."""
    if not path.exists():
        raise ImportError(
            f"perception3d: the native operators are not built ({path} is missing); "
            f"in a checkout run: {build_command}"
        )
    try:
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]  # torch has no types here
    except OSError as error:
        raise ImportError(
            f"perception3d: {path} does not load under torch {torch.__version__} ({error}); "
            f"perception3d needs torch >= 2.10; in a checkout rebuild with: {build_command}"
        ) from error


@cache
def load_library() -> Any:  # noqa: ANN401  # torch's operator namespace has no static type
    """Load the CPU library and, where a GPU is present, the CUDA library.

    Returns:
        torch's namespace of our operators: `load_library().voxelize(...)`.

    Raises:
        ImportError: the CPU library is missing or was built for something else.
    """
    _load_file(FOLDER / "_C.abi3.so", BUILD_COMMAND)
    cuda_library = FOLDER / "_C_cuda.abi3.so"
    if torch.cuda.is_available() and cuda_library.exists():
        _load_file(cuda_library, f"P3D_CUDA=1 {BUILD_COMMAND}")
    return torch.ops.perception3d


def fake_kernel(name: str) -> Callable[[Function], Function]:
    """Register the decorated function as the shape-only kernel of operator `name`.

    Raises:
        ImportError: the library was built from older sources, which lack the operator.
    """
    if not hasattr(load_library(), name):
        raise ImportError(
            f"perception3d: the native library has no operator {name}: it was built from older "
            f"sources; in a checkout rebuild with: {BUILD_COMMAND}"
        )
    register: Callable[[Function], Function] = torch.library.register_fake(f"perception3d::{name}")
    return register


def register_gradient(
    name: str, backward: Callable[..., object], save: Callable[..., object]
) -> None:
    """Register the gradient of operator `name`: what to save, and how to go back."""
    torch.library.register_autograd(f"perception3d::{name}", backward, setup_context=save)


def refuse_gradient(name: str, message: str) -> None:
    """Make differentiating operator `name` an error; else its gradient would silently be zero."""

    def refuse(ctx: Any, *grads: Any) -> NoReturn:  # noqa: ANN401  # torch's
        raise RuntimeError(message)

    def save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        pass

    register_gradient(name, refuse, save_nothing)


def refuse_second_derivative(name: str) -> None:
    """Make a second differentiation of operator `name` an error.

    Its gradient is the operator `name`_backward.
    """
    refuse_gradient(f"{name}_backward", f"{name}: there is no second derivative")
