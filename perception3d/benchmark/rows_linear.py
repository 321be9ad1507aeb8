"""Benchmark rows of linear maps of rows: the wide ones of the networks, against torch's two."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.benchmark.convolution_case import (
    WORKLOADS,
    Leaves,
    Run,
    candidate,
    moved_bytes,
    random,
    stem_voxels,
    worst_error,
)
from perception3d.benchmark.row import Case, Row, installed
from perception3d.benchmark.workloads import Workload
from perception3d.ops import linear
from perception3d.ops.reference.linear import linear as reference

# In, out, activation: projection to query, key and value of ScatterFormer and DSVT, and the wide
# half of DSVT's feed-forward network.
SETTINGS: dict[str, tuple[int, int, str | None]] = {
    "128_to_384": (128, 384, None),
    "192_to_576": (192, 576, None),
    "192_to_384_gelu": (192, 384, "gelu"),
}


def _onednn(leaves: Leaves, activation: str | None) -> Tensor:
    """Call what torch.compile emits for linear layers on CPUs."""
    rows, weight, bias = leaves
    algorithm = "none" if activation == "gelu" else ""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(
        rows, weight, bias, activation or "none", [], algorithm
    )
    return result


def _torch(leaves: Leaves, activation: str | None) -> Tensor:
    rows, weight, bias = leaves
    result = F.linear(rows, weight, bias)
    return F.gelu(result) if activation == "gelu" else result


def _case(setting: str, backward: bool, workload: Workload) -> Case:
    inputs, outputs, activation = SETTINGS[setting]
    count = stem_voxels(workload).shape[0]
    shapes = [(count, inputs), (outputs, inputs), (outputs,)]
    leaves = [random(*shape, workload=workload, dtype=torch.float32) for shape in shapes]
    leaves[1] /= inputs**0.5
    upstream = random(count, outputs, workload=workload, dtype=torch.float32) if backward else None

    def ours(leaves: Leaves) -> Tensor:
        rows, weight, bias = leaves
        return linear(rows, weight, bias, activation)

    def wanted(leaves: Leaves) -> Tensor:
        rows, weight, bias = leaves
        return reference(rows, weight, bias, activation)

    onednn: Run | None = partial(_onednn, activation=activation)
    if backward or workload.device.type != "cpu" or not _has_onednn():
        onednn = None  # it has no gradient
    runs = {"F.linear": partial(_torch, activation=activation), "oneDNN": onednn}
    with torch.no_grad() if upstream is None else torch.enable_grad():
        error = worst_error(ours, wanted, leaves, upstream)
    return Case(
        ours=candidate(ours, leaves, upstream),
        peers=installed(
            {name: run and candidate(run, leaves, upstream) for name, run in runs.items()}
        ),
        max_error=error,
        floor_bytes=moved_bytes(leaves, [], leaves[0].new_empty(count, outputs), backward),
        floor_flops=(6 if backward else 2) * count * inputs * outputs,
    )


def _has_onednn() -> bool:
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's
    return available


ROWS = tuple(
    Row(
        "linear",
        setting,
        partial(_case, setting, direction == "both"),
        WORKLOADS,
        tolerance=1e-5,
        direction=direction,
    )
    for setting in SETTINGS
    for direction in ("forward", "both")
)
