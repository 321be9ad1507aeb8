"""Benchmark rows of Voxel Mamba's backbone, Waymo.

The published network runs on GPUs alone.  Its peers here differ in the scan: all chunks at once in
torch, and step by step.  The latter take a minute for f10, so they have a row of their own, on CPUs
only: selective_scan_ref, whose ratio is required, and the same recurrence with fewer operations.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch

from perception3d.benchmark.peers import selective_scan as scans
from perception3d.benchmark.peers.spconv_layers import find_spconv
from perception3d.benchmark.peers.voxel_mamba import PlainVoxelMamba, Scan
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.whole_backbone import Space, backbone_case, encoded_voxels, settled
from perception3d.benchmark.workloads import Workload
from perception3d.models.backbones.voxel_mamba import VoxelMamba

REFERENCE = "selective_scan_ref + spconv"
MAMBA_SSM = "mamba_ssm + spconv"
CHANNELS = 128
# gwenzhang/Voxel-Mamba: tools/cfgs/voxel_mamba_models/voxel_mamba_waymo.yaml
SPACE = Space((0.32, 0.32, 0.1875), (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0), raised=True)


def _at_once(workload: Workload) -> Mapping[str, Scan]:
    found: dict[str, Scan] = {"torch chunks of 64 + spconv": scans.chunked}
    if scans.mamba_ssm_is_usable(workload.device):
        found[MAMBA_SSM] = scans.mamba_ssm
    return found


def _step_by_step(workload: Workload) -> Mapping[str, Scan]:
    if workload.device.type != "cpu":
        return {}
    return {REFERENCE: scans.reference, "torch step by step + spconv": scans.step_by_step}


def _case(forms: Callable[[Workload], Mapping[str, Scan]], workload: Workload) -> Case:
    torch.manual_seed(0)
    # With the decay rates of S4D, which trained states spread over as well.
    net = settled(VoxelMamba(SPACE.voxel_size, SPACE.extent, dropped_layers=1, init="s4d"))
    net = net.to(workload.device)
    voxels = encoded_voxels(workload, SPACE, CHANNELS)
    spconv, peers = find_spconv(workload.device), {}
    if spconv is not None:
        peers = {name: PlainVoxelMamba(net, scan, spconv) for name, scan in forms(workload).items()}
    return backbone_case(net, voxels, peers)


ROWS = (
    Row(
        "voxel_mamba_backbone",
        "waymo",
        partial(_case, _at_once),
        ("tiny", "f1", "f10"),
        tolerance=1e-4,
        required_cuda={MAMBA_SSM: 1.5},
        aim_ms=1200.0,
        aim_ms_cuda=2.5,
    ),
    Row(
        "voxel_mamba_backbone",
        "waymo_step_by_step",
        partial(_case, _step_by_step),
        ("tiny", "f1", "f10"),
        tolerance=1e-4,
        required={REFERENCE: 20.0},
    ),
)
