"""Several processes: torchrun or slurm, nccl on CUDA, gloo on the CPU."""

import inspect
import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from torch import nn

from perception3d.errors import UserError


def choose_launcher(launcher: str | None) -> str:
    """Return the launcher asked for; None: torchrun if its environment is there, else none."""
    if launcher is not None:
        return launcher
    return "pytorch" if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= set(os.environ) else "none"


def choose_device(device: str | None, launcher: str = "none") -> torch.device:
    """Return the device to compute on.

    Args:
        device: "cpu", "cuda", "cuda:N", or None for CUDA where there is any.
        launcher: with several processes, "cuda" means the GPU of the local rank.

    Raises:
        UserError: no such device here.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise UserError(f"--device {device}: must be cpu, cuda or cuda:N") from error
    if chosen.type not in ("cpu", "cuda"):
        raise UserError(f"--device {device}: must be cpu, cuda or cuda:N")
    if chosen.type == "cpu":
        return chosen
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = chosen.index if chosen.index is not None else 0
    if launcher != "none":
        index = int(os.environ.get("LOCAL_RANK", index))
    if index >= count:
        raise UserError(
            f"--device cuda:{index}: this machine offers {count} CUDA devices to torch "
            f"{torch.__version__}; use --device cpu (python -m perception3d.doctor tells more)"
        )
    return torch.device("cuda", index)


def start_processes(launcher: str, device: torch.device) -> None:
    """Join the process group; nothing happens without a launcher, or when it has been joined.

    mmengine's own start sets a CUDA device even for gloo, so the group is made before its Runner.

    Raises:
        UserError: the launcher's environment is missing.
    """
    if launcher == "none" or dist.is_initialized():
        return
    if launcher == "slurm":
        _slurm_environment()
    missing = [name for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if name not in os.environ]
    if missing:
        raise UserError(
            f"--launcher {launcher}: {', '.join(missing)} not set; start with "
            f"torchrun --nproc_per_node=N tools/train.py ..."
        )
    # torchrun sets the first; mmengine sets the second, with a warning
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MKL_NUM_THREADS", "1")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


@contextmanager
def leave_at_end() -> Iterator[None]:
    """Leave the process group, if any, when the block ends.

    After success all processes leave together: one that closes its connections while another
    still uses them can abort that one.
    """
    try:
        yield
        if dist.is_initialized():
            dist.barrier()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes, 1 when alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def mean_over_processes(values: list[float]) -> list[float]:
    """Average numbers over all processes; every process must call it."""
    if world_size() == 1:
        return values
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return [float(value) / world_size() for value in total.cpu()]


def _slurm_environment() -> None:
    """Say in torch's words what slurm said in its own."""
    try:
        os.environ.setdefault("RANK", os.environ["SLURM_PROCID"])
        os.environ.setdefault("WORLD_SIZE", os.environ["SLURM_NTASKS"])
        os.environ.setdefault("LOCAL_RANK", os.environ["SLURM_LOCALID"])
        nodes = os.environ["SLURM_NODELIST"]
    except KeyError as error:
        raise UserError(f"--launcher slurm: {error} not set; start with srun") from error
    if "MASTER_ADDR" not in os.environ:
        listing = subprocess.run(
            ["scontrol", "show", "hostname", nodes], capture_output=True, text=True, check=True
        )
        os.environ["MASTER_ADDR"] = listing.stdout.split()[0]
    os.environ.setdefault("MASTER_PORT", "29500")


class DistributedModel(MMDistributedDataParallel):  # type: ignore[misc]  # mmengine ships no types
    """Data-parallel training on any device; on the CPU device numbers have no meaning.

    Buffers are not broadcast: running statistics are equal anyway with synchronised norms.

    Args:
        model: has `train_step` (mmengine's BaseModel); lies on its device.
        device: that device.
        options: further arguments of torch's DistributedDataParallel.
    """

    def __init__(self, model: nn.Module, device: torch.device, **options: Any) -> None:
        numbers = [device.index] if device.type == "cuda" else None
        # torch renamed the argument and warns about the old name
        accepted = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        new = "forward_sync_buffers" in accepted
        options["forward_sync_buffers" if new else "broadcast_buffers"] = False
        # A 1x1 convolution's gradient may have another stride of its axes of length one: one copy.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        super().__init__(model, device_ids=numbers, **options)
