"""Benchmark rows of a whole Mamba mixer, without gradients.

One frame of the Waymo grid as one sequence on the Hilbert curve, full resolution, at the official
widths.  Ours gathers and scatters the rows of the voxels; peers get them sorted.
"""

import torch
from torch import Tensor

from perception3d.benchmark.peers import selective_scan as scans
from perception3d.benchmark.peers.voxel_mamba import Scan, mix
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.rows_scan import RANK, frame_coords
from perception3d.benchmark.rows_voxels import relative_error
from perception3d.benchmark.workloads import Workload
from perception3d.layers.state_space import StateSpaceBlock
from perception3d.ops import curve_order
from perception3d.ops.reference.mamba_mixer import mamba_mixer as reference
from perception3d.structures import CurveOrder, CurveSpec

CHANNELS = 128


def _case(workload: Workload) -> Case:
    order, _, offsets = curve_order(frame_coords(workload), 1, RANK)
    curve = CurveOrder(order, offsets, CurveSpec(RANK, 0))
    torch.manual_seed(0)
    block = StateSpaceBlock(CHANNELS).to(workload.device)
    features = torch.randn(len(order), CHANNELS).to(workload.device)
    exact = StateSpaceBlock(CHANNELS).to(workload.device, torch.float64)
    exact.load_state_dict(block.state_dict())
    placed = features[order]

    def ours() -> Tensor:
        result: Tensor = block(features, curve)
        return result

    def peer(scan: Scan) -> Tensor:
        return mix(block, scan, placed)

    forms: dict[str, Scan] = {"torch, chunks of 64 at once": scans.chunked}
    if scans.mamba_ssm_is_usable(workload.device):
        forms["mamba_ssm"] = scans.mamba_ssm
    with torch.no_grad():
        wanted = reference(features.double(), offsets, exact.mixer(), order=order)
        max_error = relative_error(ours(), wanted)
    inner, states = block.A_log.shape
    maps = (block.in_proj, block.x_proj, block.step_proj, block.out_proj)
    return Case(
        ours=torch.no_grad()(ours),
        peers={name: torch.no_grad()(lambda scan=scan: peer(scan)) for name, scan in forms.items()},
        max_error=max_error,
        floor_bytes=2 * features.nbytes,
        floor_flops=2 * len(order) * sum(layer.weight.numel() for layer in maps),
        floor_exps=len(order) * inner * states,
    )


ROWS = (Row("mamba_mixer", "voxel_mamba_waymo", _case, ("tiny", "f1", "f10"), tolerance=1e-5),)
