"""Where the CUDA kernels run: on the interpreter, and on a GPU in tests marked gpu."""

import pytest
import torch
from simt_library import load_simt_library


class KernelsOnGpu:
    """The operators of `perception3d` on CUDA, called with and returning CPU tensors."""

    def __getattr__(self, name):
        from perception3d.ops.library import load_library

        operator = getattr(load_library(), name)
        return lambda *arguments: _move(operator(*_move(arguments, "cuda")), "cpu")


def _move(value, device):
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)(_move(entry, device) for entry in value)
    return value


@pytest.fixture(params=["interpreter", pytest.param("gpu", marks=pytest.mark.gpu)])
def kernels(request):
    """Operators whose CUDA kernels run, with CPU tensors going in and coming out."""
    return load_simt_library() if request.param == "interpreter" else KernelsOnGpu()


@pytest.fixture
def interpreter():
    """Only the interpreter: for what it alone reports."""
    return load_simt_library()
