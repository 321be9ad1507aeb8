"""Benchmark rows of set attention: the operator, and the layer around it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from perception3d.benchmark.peers import set_attention as peers
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.rows_partition import SETTINGS, Setting
from perception3d.benchmark.rows_voxels import relative_error
from perception3d.benchmark.workloads import Workload
from perception3d.layers import SetAttention
from perception3d.ops import set_attention, set_partition, voxelize, window_partition
from perception3d.ops.reference.set_attention import set_attention as reference

HEADS = 8
CHANNELS = {"dsvt_pillar_waymo": 192, "dsvt_voxel_waymo": 192, "dsvt_pillar_nuscenes": 128}
WORKLOADS = ("tiny", "tail", "f1", "f10", "w180")
OFFICIAL = "official style, torch"
PADDED = "projected per voxel, padded SDPA"
PADDED_CORE = "padded SDPA"
# Of the padded peers' largest buffer; the sets of `tail` are mostly padding.
PADDED_BYTES = 2**31
# Products for one of the forward pass: going back, the core makes its weights again and has two
# gradients more; a linear map has the gradient of its rows and that of its weight.
CORE_PASSES = {"forward": 1.0, "backward": 2.5, "both": 3.5}
MAP_PASSES = {"forward": 1.0, "backward": 2.0, "both": 3.0}


@dataclass(frozen=True)
class Sets:
    """The y-major sets of the first partition, for us and for padded peers."""

    order: Tensor
    offsets: Tensor
    slots: peers.Slots

    @property
    def pairs(self) -> int:
        """Pairs of query and key."""
        return int((self.offsets.diff() ** 2).sum())


def make_sets(setting: Setting, workload: Workload) -> Sets:
    """Voxelise and partition, on the workload's device."""
    points = workload.raised() if setting.raised else workload.points
    frame = torch.zeros(points.shape[0], dtype=torch.int32, device=points.device)
    _, coords, _, _ = voxelize(points, frame, 1, setting.voxel_size, setting.extent)
    grid = setting.grids[0]
    _, order, offsets, cells = window_partition(
        coords, 1, grid.shape[::-1], grid.window[::-1], grid.shift[::-1]
    )
    *slots, set_order, set_offsets = set_partition(cells, order, offsets, grid.set_size)
    return Sets(set_order[0], set_offsets, peers.Slots(*(table[0] for table in slots)))


def _finisher(
    direction: str, leaves: Sequence[Tensor], grad: Tensor
) -> Callable[[Callable[[], Tensor]], Callable[[], object]]:
    """Return what turns a forward pass into the candidate of a direction.

    "backward" keeps the graph of one forward pass and goes back through it again and again.
    """

    def both(run: Callable[[], Tensor]) -> object:
        return torch.autograd.grad(run(), leaves, grad)

    def finish(run: Callable[[], Tensor]) -> Callable[[], object]:
        if direction == "forward":
            return torch.no_grad()(run)
        if direction == "both":
            return partial(both, run)
        result = run()
        return lambda: torch.autograd.grad(result, leaves, grad, retain_graph=True)

    return finish


def _largest_error(ours: object, wanted: Sequence[Tensor]) -> float:
    results = ours if isinstance(ours, tuple) else (ours,)
    return max(relative_error(a.detach(), b) for a, b in zip(results, wanted, strict=True))


def _wanted(
    direction: str, run: Callable[[], Tensor], leaves: Sequence[Tensor], grad: Tensor
) -> tuple[Tensor, ...]:
    """Return what a float64 run yields in this direction."""
    result = run()
    if direction == "forward":
        return (result.detach(),)
    return torch.autograd.grad(result, leaves, grad)


def _core_case(name: str, dtype: torch.dtype, direction: str, workload: Workload) -> Case:
    sets = make_sets(SETTINGS[name], workload)
    count, width = sets.order.shape[0], CHANNELS[name] // HEADS
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(count, 4, HEADS, width, generator=generator).to(workload.device, dtype)
    *leaves, grad = rows.unbind(1)
    query, key, value = (row.requires_grad_(direction != "forward") for row in leaves)
    exact = [row.detach().double().requires_grad_() for row in leaves]
    finish = _finisher(direction, leaves, grad)
    ours = finish(lambda: set_attention(query, key, value, sets.order, sets.offsets))
    wanted = _wanted(
        direction,
        lambda: reference(exact[0], exact[1], exact[2], sets.order, sets.offsets),
        exact,
        grad.double(),
    )
    fits = 4 * sets.slots.voxel_of_slot.numel() * CHANNELS[name] * dtype.itemsize <= PADDED_BYTES
    passes = CORE_PASSES[direction]
    return Case(
        ours=ours,
        peers={PADDED_CORE: finish(lambda: peers.padded_sdpa(query, key, value, sets.slots))}
        if fits
        else {},
        max_error=_largest_error(ours(), wanted),
        floor_bytes=int(4 * count * CHANNELS[name] * dtype.itemsize * passes),
        floor_flops=int(4 * sets.pairs * CHANNELS[name] * passes),
        floor_exps=sets.pairs * HEADS * (2 if direction == "both" else 1),
    )


def _layer_case(name: str, dtype: torch.dtype, direction: str, workload: Workload) -> Case:
    sets = make_sets(SETTINGS[name], workload)
    count, channels = sets.order.shape[0], CHANNELS[name]
    generator = torch.Generator().manual_seed(0)
    layer = _layer(channels, generator).to(workload.device)
    features, position, grad = (
        torch.randn(count, channels, generator=generator).to(workload.device) for _ in range(3)
    )
    # The same numbers for the reference, as they are after rounding to the dtype.
    exact = _layer(channels, generator).to(workload.device, torch.float64)
    exact.load_state_dict(layer.to(dtype).state_dict())
    grad = grad.to(dtype)
    leaves = [row.to(dtype).requires_grad_(direction != "forward") for row in (features, position)]
    exact_leaves = [row.detach().double().requires_grad_() for row in leaves]
    everything = [*leaves, *layer.parameters()]
    finish = _finisher(direction, everything, grad)
    module = peers.official_module(layer)
    ours = finish(lambda: layer(*leaves, sets.order, sets.offsets))
    wanted = _wanted(
        direction,
        lambda: exact(*exact_leaves, sets.order, sets.offsets),
        [*exact_leaves, *exact.parameters()],
        grad.double(),
    )
    candidates = {
        OFFICIAL: lambda: peers.official_style(
            module, leaves[0], leaves[1], sets.slots.voxel_of_slot, sets.slots.repeated
        ),
        PADDED: lambda: peers.projected_then_padded(layer, leaves[0], leaves[1], sets.slots),
    }
    fits = 4 * sets.slots.voxel_of_slot.numel() * channels * dtype.itemsize <= PADDED_BYTES
    passes, map_passes = CORE_PASSES[direction], MAP_PASSES[direction]
    return Case(
        ours=ours,
        peers={peer: finish(run) for peer, run in candidates.items()} if fits else {},
        max_error=_largest_error(ours(), wanted),
        floor_bytes=int(3 * count * channels * dtype.itemsize * passes),
        floor_flops=int(8 * count * channels**2 * map_passes + 4 * sets.pairs * channels * passes),
        floor_exps=sets.pairs * HEADS * (2 if direction == "both" else 1),
    )


def _layer(channels: int, generator: torch.Generator) -> SetAttention:
    layer = SetAttention(channels, HEADS)
    for parameter in layer.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.1, generator=generator)
    return layer


def _row(
    op: str,
    name: str,
    direction: str = "forward",
    dtype: torch.dtype = torch.float32,
    required: dict[str, float] | None = None,
    aim_ms: float | None = None,
    aim_ms_cuda: float | None = None,
) -> Row:
    prepare = _layer_case if op == "set_attention_layer" else _core_case
    return Row(
        op,
        name,
        partial(prepare, name, dtype, direction),
        WORKLOADS,
        tolerance=1e-5 if dtype == torch.float32 else 2e-2,
        direction=direction,
        required=required or {},
        dtype=str(dtype).removeprefix("torch."),
        aim_ms=aim_ms,
        aim_ms_cuda=aim_ms_cuda,
    )


LAYER, CORE = "set_attention_layer", "set_attention"
FORWARD = {OFFICIAL: 2.0, PADDED: 1.6}
BACKWARD = {PADDED: 2.0}

ROWS = (
    _row(CORE, "dsvt_pillar_waymo", aim_ms=10.0),
    _row(CORE, "dsvt_pillar_waymo", dtype=torch.bfloat16),
    _row(CORE, "dsvt_pillar_waymo", "backward", required={PADDED_CORE: 2.0}),
    _row(CORE, "dsvt_voxel_waymo"),
    _row(CORE, "dsvt_pillar_nuscenes"),
    _row(LAYER, "dsvt_pillar_waymo", required=FORWARD, aim_ms=35.0),
    _row(LAYER, "dsvt_pillar_waymo", dtype=torch.bfloat16, aim_ms_cuda=0.025),
    _row(LAYER, "dsvt_pillar_waymo", "backward", required=BACKWARD, aim_ms=90.0),
    _row(LAYER, "dsvt_pillar_waymo", "backward", torch.bfloat16, aim_ms_cuda=0.060),
    _row(LAYER, "dsvt_pillar_nuscenes", required=FORWARD),
)
