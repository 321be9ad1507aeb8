"""Benchmark rows of a whole layer of a set transformer, without gradients."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.benchmark.peers import set_attention as peers
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.rows_attention import (
    CHANNELS,
    HEADS,
    OFFICIAL,
    PADDED,
    PADDED_BYTES,
    WORKLOADS,
    make_sets,
)
from perception3d.benchmark.rows_partition import SETTINGS
from perception3d.benchmark.rows_voxels import relative_error
from perception3d.benchmark.workloads import Workload
from perception3d.layers import SetTransformer
from perception3d.structures import TableRows


def _case(name: str, workload: Workload) -> Case:
    sets = make_sets(SETTINGS[name], workload)
    count, channels = sets.order.shape[0], CHANNELS[name]
    torch.manual_seed(0)
    layer = SetTransformer(channels, HEADS, 2 * channels).to(workload.device).eval()
    cells = SETTINGS[name].grids[0].window
    places = cells[0] * cells[1] * cells[2]
    features = torch.randn(count, channels).to(workload.device)
    position = TableRows(
        torch.randn(places, channels).to(workload.device),
        torch.randint(places, (count,)).to(workload.device),
    )
    rows = position.expand()
    exact = SetTransformer(channels, HEADS, 2 * channels).to(workload.device, torch.float64)
    exact.load_state_dict(layer.state_dict())
    module = peers.official_module(layer.attention)

    def rest(mixed: Tensor) -> Tensor:
        attended = layer.norm1(features + mixed)
        hidden = F.gelu(F.linear(attended, layer.linear1.weight, layer.linear1.bias))
        fed = F.linear(hidden, layer.linear2.weight, layer.linear2.bias)
        result: Tensor = layer.norm2(attended + fed)
        return result

    slots = sets.slots
    candidates = {
        OFFICIAL: lambda: rest(
            peers.official_style(module, features, rows, slots.voxel_of_slot, slots.repeated)
        ),
        PADDED: lambda: rest(peers.projected_then_padded(layer.attention, features, rows, slots)),
    }

    def ours() -> Tensor:
        result: Tensor = layer(features, position, sets.order, sets.offsets)
        return result

    with torch.no_grad():
        wanted = exact(features.double(), rows.double(), sets.order, sets.offsets)
        max_error = relative_error(ours(), wanted)
    fits = 4 * slots.voxel_of_slot.numel() * channels * 4 <= PADDED_BYTES
    return Case(
        ours=torch.no_grad()(ours),
        peers={peer: torch.no_grad()(run) for peer, run in candidates.items()} if fits else {},
        max_error=max_error,
        floor_bytes=2 * features.nbytes,
        floor_flops=16 * count * channels**2 + 4 * sets.pairs * channels,
        floor_exps=sets.pairs * HEADS,
    )


ROWS = tuple(
    Row("set_transformer", name, partial(_case, name), WORKLOADS, tolerance=1e-5)
    for name in ("dsvt_pillar_waymo", "dsvt_voxel_waymo")
)
