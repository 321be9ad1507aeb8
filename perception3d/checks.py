"""Border checks of values and operators: shape and dtype only, never a tensor's content."""

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int32, torch.int64)


def describe(value: object) -> str:
    """Say what came: shape and dtype of a tensor, the type of anything else."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def check_tensor(
    owner: str,
    name: str,
    value: object,
    shape: tuple[int | str, ...],
    dtypes: tuple[torch.dtype, ...],
) -> None:
    """Raise unless `value` is a tensor of the given shape and dtype.

    Args:
        owner: class or operator named at the start of the message.
        name: argument named in the message.
        value: what the caller passed.
        shape: expected sizes; a letter such as "N" accepts any size, ">=3" any from 3 on.
        dtypes: accepted dtypes.

    Raises:
        TypeError: not a tensor, or a dtype that is not accepted.
        ValueError: another shape.
    """
    wanted = f"({', '.join(str(size) for size in shape)}{',' if len(shape) == 1 else ''})"
    kinds = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    if not isinstance(value, Tensor) or value.dtype not in dtypes:
        raise TypeError(f"{owner}: {name} must be {wanted} {kinds}, got {describe(value)}")
    fits = value.ndim == len(shape) and all(
        _size_fits(want, got) for want, got in zip(shape, value.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{owner}: {name} must be {wanted} {kinds}, got {describe(value)}")


def _size_fits(want: int | str, got: int) -> bool:
    if isinstance(want, str):
        return not want.startswith(">=") or got >= int(want.removeprefix(">="))
    return want == got


def check_same_device(owner: str, **tensors: Tensor) -> None:
    """Raise ValueError unless all tensors lie on one device."""
    devices = {name: tensor.device for name, tensor in tensors.items()}
    if len(set(devices.values())) > 1:
        found = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"{owner}: all tensors must lie on one device, got {found}")
