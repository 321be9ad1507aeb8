"""Activation checkpointing of modules that contain batch norms."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute_in_backward(
    function: Callable[..., Tensor], *inputs: Tensor, modules: Iterable[nn.Module]
) -> Tensor:
    """Call a function now and keep nothing of it; call it again in the backward pass.

    The second call sees the batch statistics of the first, but does not count them once more in
    the running statistics.

    Args:
        function: uses the modules; its random numbers, if any, are repeated.
        inputs: arguments.
        modules: where its batch norms are.
    """
    norms = [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm)]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _running_statistics_kept(norms)

    result: Tensor = checkpoint(function, *inputs, use_reentrant=False, context_fn=contexts)
    return result


@contextmanager
def _running_statistics_kept(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Let batch norms update copies.

    Not a copy back: autograd has saved the buffers themselves and refuses written ones.
    """
    kept = [(norm, dict(norm.named_buffers(recurse=False))) for norm in norms]
    for norm, buffers in kept:
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in kept:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
