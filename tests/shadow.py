"""Runs every call of a native operator a second time, on another device, and compares.

Tests call operators with CPU tensors.  With `pytest tests/ops --shadow cuda` each such call,
forward or backward, is repeated with its tensors on the GPU; `--shadow simt` repeats it on
the interpreter of CUDA kernels (docs/cuda.md).  So every CPU test is a CUDA test as well.
"""

import re
from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

# Relative to the largest number around: float sums may be taken in another order, and 16-bit
# results may be rounded to the other neighbour.
TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 2e-5,
    torch.bfloat16: 1e-2,
    torch.float16: 2e-3,
}
# Operators that divide by sums, which may be near 0: 2.6e-5 was seen of one rounding.
AMPLIFIED = {"perception3d::scattered_linear_attention_backward": 5}
# What an operator says that has a limit on CUDA, as csrc/binding/cuda words it.
LIMIT = re.compile("on the CPU only|on CUDA|on this device")
LARGEST_SIMT = 20_000  # numbers in the tensors of a call: the interpreter takes seconds for more


class Shadow(TorchDispatchMode):
    """Repeats calls of `torch.ops.perception3d` while it is active.

    Args:
        where: "cuda" or "simt".

    Attributes:
        repeated: number of compared calls by operator.
        left_out: number of calls by reason.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.repeated: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.namespace == "perception3d":
            tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
            reason = self._reason_to_leave_out(func, tensors)
            if reason is None:
                reason = self._repeat(func, args, kwargs, result)
            if reason is not None:
                self.left_out[reason] += 1
        return result

    def _reason_to_leave_out(self, func, tensors: list[Tensor]) -> str | None:
        name = func._schema.name
        if any(type(x) not in (Tensor, torch.nn.Parameter) or x.is_meta for x in tensors):
            return "symbolic tensors of torch.compile and opcheck"
        if self.where == "cuda":
            found = torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")
            return None if found else f"{name}: no CUDA kernel"
        twin = name.replace("perception3d::", "perception3d_simt::")
        if not torch._C._dispatch_has_kernel_for_dispatch_key(twin, "CPU"):
            return f"{name}: no CUDA kernel"
        large = sum(x.numel() for x in tensors) > LARGEST_SIMT
        return f"{name}: too large for the interpreter" if large else None

    def _repeat(self, func, args, kwargs, expected) -> str | None:
        """Return why the other device does not do this, if it says so."""
        name = func._schema.name
        if self.where == "cuda":
            args, kwargs = tree_map_only(Tensor, lambda x: x.detach().cuda(), (args, kwargs))
        else:
            twin = getattr(torch.ops.perception3d_simt, name.split("::")[1])
            func = getattr(twin, func._overloadname)
        try:
            result = func(*args, **kwargs)
        except RuntimeError as error:
            if f"{name.split('::')[1]}: " in str(error) and LIMIT.search(str(error)):
                return f"{name}: beyond the limits of the CUDA kernels"
            raise
        scale = max((_largest(x) for x in tree_flatten((args, kwargs))[0]), default=0.0)
        scale *= AMPLIFIED.get(name, 1)
        pairs = zip(tree_flatten(result)[0], tree_flatten(expected)[0], strict=True)
        for number, (ours, theirs) in enumerate(pairs):
            _compare(f"{name}, result {number}, {self.where} against CPU", ours, theirs, scale)
        self.repeated[name] += 1
        return None

    def summary(self) -> list[str]:
        """Return lines for the end of the run."""
        calls = [f"  {name}: {count} calls" for name, count in sorted(self.repeated.items())]
        rest = [f"  left out: {why} ({count})" for why, count in sorted(self.left_out.items())]
        return [f"repeated on {self.where} and compared with the CPU:", *calls, *rest]


def _largest(value: object) -> float:
    """Return the largest finite magnitude in a float tensor, 0 for anything else."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() == 0:
        return 0.0
    magnitude = value.detach().abs().double()
    return float(torch.where(magnitude.isfinite(), magnitude, 0.0).max())


def _compare(what: str, ours: Tensor, theirs: Tensor, scale: float) -> None:
    ours = ours.cpu()
    assert ours.dtype == theirs.dtype, what
    assert ours.shape == theirs.shape, f"{what}: {ours.shape} instead of {theirs.shape}"
    if not ours.is_floating_point():
        assert torch.equal(ours, theirs), f"{what}: other numbers"
        return
    tolerance = TOLERANCES[ours.dtype]
    torch.testing.assert_close(
        ours,
        theirs,
        rtol=tolerance,
        atol=tolerance * max(scale, _largest(theirs)),
        equal_nan=True,
        msg=lambda text: f"{what}: {text}",
    )
