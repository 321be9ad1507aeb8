"""Benchmark rows of Voxel Mamba's operators: curve order, causal convolution, selective scan.

One frame of the Waymo grid 468 x 468 x 32 as one sequence on the Hilbert curve, full resolution, at
the official widths.  Ours gathers and scatters the rows of the voxels; peers get them sorted.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import partial

import torch
from torch import Tensor

from perception3d.benchmark.measure import Candidate
from perception3d.benchmark.peers import selective_scan as peers
from perception3d.benchmark.row import Case, Row, installed
from perception3d.benchmark.rows_voxels import relative_error
from perception3d.benchmark.workloads import Workload
from perception3d.ops import causal_conv1d, curve_index, curve_order, selective_scan, voxelize
from perception3d.ops.reference.curve_order import curve_order as reference_order

VOXEL_SIZE = (0.32, 0.32, 0.1875)
WAYMO_RANGE = (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)
CHANNELS, STATES, DT_RANK, TAPS, RANK = 256, 16, 8, 4, 9
CHECKED_STEPS = 512
LONGEST_STEP_BY_STEP = 10_000


def frame_coords(workload: Workload) -> Tensor:
    """Return the voxels of the frame on its device, (N, 4) int32 rows (b, z, y, x)."""
    points = workload.raised()
    frame = torch.zeros(points.shape[0], dtype=torch.int32, device=points.device)
    return voxelize(points, frame, 1, VOXEL_SIZE, WAYMO_RANGE)[1]


def _order_case(workload: Workload) -> Case:
    coords = frame_coords(workload)
    side, layers = 1 << RANK, 41
    cells = torch.cartesian_prod(*map(torch.arange, (1, layers, side, side))).int()
    table = curve_index(cells, RANK).to(workload.device)

    def from_table() -> tuple[Tensor, Tensor]:
        z, y, x = coords[:, 1:].long().unbind(1)
        order = torch.argsort(table[(z * side + y) * side + x])
        return order, torch.argsort(order)

    wanted = reference_order(coords, 1, RANK)
    same = all(map(torch.equal, curve_order(coords, 1, RANK), wanted))
    return Case(
        ours=partial(curve_order, coords, 1, RANK),
        peers={
            "table of indices + argsort": from_table,
            "torch bit operations + argsort": partial(reference_order, coords, 1, RANK),
        },
        max_error=0.0 if same else float("inf"),
        floor_bytes=coords.shape[0] * (16 + 8 + 8),
    )


class _Sequence:
    """Inputs of both operators, in rows of voxels and sorted along the curve."""

    def __init__(self, workload: Workload, dtype: torch.dtype) -> None:
        self.order, _, self.offsets = curve_order(frame_coords(workload), 1, RANK)
        self.length = self.order.shape[0]
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(workload.device)

        self.xz = normal(self.length, 2 * CHANNELS).to(dtype)  # of the input projection
        self.dt_b_c = normal(self.length, DT_RANK + 2 * STATES).to(dtype)
        self.u = normal(self.length, CHANNELS).to(dtype)
        self.delta = (normal(self.length, CHANNELS) - 4).to(dtype)  # softplus: around 0.02
        self.grad = normal(self.length, CHANNELS).to(dtype)
        states = torch.arange(1, STATES + 1, device=workload.device)
        self.A = -states.float().expand(CHANNELS, STATES).contiguous()
        self.skip, self.bias = torch.ones_like(self.A[:, 0]), normal(CHANNELS)
        self.weight = normal(CHANNELS, TAPS) / 2

    def scan_inputs(self) -> peers.ScanInputs:
        """Return the inputs of the scan, row by row, as the projections leave them."""
        b, c = self.dt_b_c[:, DT_RANK:].tensor_split(2, dim=1)
        gate = self.xz[:, CHANNELS:]
        return peers.ScanInputs(self.u, self.delta, self.A, b, c, self.skip, gate, self.bias / 10)

    def on_the_curve(self, inputs: peers.ScanInputs) -> peers.ScanInputs:
        """Return the same inputs with the rows sorted along the curve."""
        values = {f.name: getattr(inputs, f.name) for f in fields(inputs)}
        return peers.ScanInputs(
            **{
                name: value[self.order] if value.shape[0] == self.length else value
                for name, value in values.items()
            }
        )

    def scan(self, inputs: peers.ScanInputs) -> Tensor:
        """Our operator."""
        return selective_scan(
            inputs.u,
            inputs.delta,
            inputs.A,
            inputs.B,
            inputs.C,
            self.offsets,
            skip=inputs.skip,
            gate=inputs.gate,
            delta_bias=inputs.delta_bias,
            delta_softplus=True,
            order=self.order,
        )


def _convert(inputs: peers.ScanInputs, change: Callable[[Tensor], Tensor]) -> peers.ScanInputs:
    return peers.ScanInputs(**{f.name: change(getattr(inputs, f.name)) for f in fields(inputs)})


def _leaves(inputs: peers.ScanInputs) -> list[Tensor]:
    return [getattr(inputs, f.name) for f in fields(inputs)]


def _gradients(result: Tensor, leaves: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(result, leaves, grad.to(result.dtype), retain_graph=True)


def _exact_scan(sequence: _Sequence, inputs: peers.ScanInputs) -> tuple[peers.ScanInputs, Tensor]:
    """Scan in float64 by our operator, its first steps compared with the recurrence.

    A recurrence of 40,000 steps with its gradient would need tens of gigabytes.
    """
    double = _convert(inputs, lambda t: t.detach().double().requires_grad_())
    result = sequence.scan(double)
    head = sequence.on_the_curve(_convert(double, Tensor.detach))
    first = {f.name: getattr(head, f.name) for f in fields(head)}
    steps = min(CHECKED_STEPS, sequence.length)
    first = {k: v[:steps] if v.shape[0] == sequence.length else v for k, v in first.items()}
    wanted = peers.step_by_step(peers.ScanInputs(**first))
    error = relative_error(result.detach()[sequence.order[:steps]], wanted)
    if error > 1e-12:
        raise RuntimeError(f"selective_scan in float64 is off the recurrence by {error:.2g}")
    return double, result


def _scan_case(dtype: torch.dtype, backward: bool, workload: Workload) -> Case:
    sequence = _Sequence(workload, dtype)
    inputs = sequence.scan_inputs()
    double, exact = _exact_scan(sequence, inputs)
    ours_inputs = _convert(inputs, lambda t: t.detach().requires_grad_(backward))
    sorted_inputs = _convert(
        sequence.on_the_curve(inputs), lambda t: t.detach().clone().requires_grad_(backward)
    )
    sorted_grad = sequence.grad[sequence.order]

    def timed(scan: Callable[[peers.ScanInputs], Tensor], of: peers.ScanInputs) -> Candidate:
        if not backward:
            return partial(scan, of)
        grad = sequence.grad if of is ours_inputs else sorted_grad
        return partial(_gradients, scan(of), _leaves(of), grad)

    forms: dict[str, Callable[[peers.ScanInputs], Tensor] | None] = {
        "torch, chunks of 64 at once": peers.chunked,
        "torch, step by step": (
            peers.step_by_step if sequence.length <= LONGEST_STEP_BY_STEP else None
        ),
        "mamba_ssm": peers.mamba_ssm if peers.mamba_ssm_is_usable(workload.device) else None,
    }
    results = [sequence.scan(ours_inputs)]
    wanted = [exact]
    if backward:
        results = list(_gradients(results[0], _leaves(ours_inputs), sequence.grad))
        wanted = list(_gradients(exact, _leaves(double), sequence.grad))
    rows = 7 if backward else 4
    numbers = sequence.length * CHANNELS
    return Case(
        ours=timed(sequence.scan, ours_inputs),
        peers=installed(
            {name: None if f is None else timed(f, sorted_inputs) for name, f in forms.items()}
        ),
        max_error=max(
            relative_error(a.detach(), b.detach()) for a, b in zip(results, wanted, strict=True)
        ),
        floor_bytes=(rows * numbers + (4 if backward else 2) * sequence.length * STATES)
        * dtype.itemsize,
        floor_flops=numbers * STATES * (18 if backward else 8),
        floor_exps=numbers * STATES,
    )


def _conv_case(dtype: torch.dtype, backward: bool, workload: Workload) -> Case:
    sequence = _Sequence(workload, dtype)
    x, grad, order = sequence.xz[:, :CHANNELS], sequence.grad, sequence.order
    parameters = [sequence.weight, sequence.bias]

    def leaves(*tensors: Tensor) -> list[Tensor]:
        return [tensor.detach().requires_grad_(backward) for tensor in tensors]

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return causal_conv1d(x, weight, bias, sequence.offsets, activation="silu", order=order)

    def timed(form: Callable[..., Tensor], tensors: list[Tensor], upstream: Tensor) -> Candidate:
        if not backward:
            return partial(form, *tensors)
        return partial(_gradients, form(*tensors), tensors, upstream)

    ours = leaves(x, *parameters)
    theirs = [tensor.to(dtype) for tensor in parameters]
    by_row = leaves(x[order], *theirs)
    by_channel = leaves(x[order].T.contiguous()[None], *theirs)
    double = leaves(x.double(), *(tensor.double() for tensor in parameters))
    results, wanted = [run(*ours)], [run(*double)]
    check = peers.conv1d(double[0][order].T[None], double[1], double[2])[0].T
    if relative_error(wanted[0].detach()[order], check.detach()) > 1e-12:
        raise RuntimeError("causal_conv1d in float64 is off torch's convolution")
    if backward:
        results = list(_gradients(results[0], ours, grad))
        wanted = list(_gradients(wanted[0], double, grad))
    numbers = sequence.length * CHANNELS
    return Case(
        ours=timed(run, ours, grad),
        peers={
            "F.conv1d + silu": timed(peers.conv1d, by_channel, grad[order].T[None]),
            "torch, shifted rows": timed(peers.shifted_rows, by_row, grad[order]),
        },
        max_error=max(
            relative_error(a.detach(), b.detach()) for a, b in zip(results, wanted, strict=True)
        ),
        floor_bytes=numbers * dtype.itemsize * (3 if backward else 2),
        floor_flops=numbers * TAPS * 2 * (3 if backward else 1),
        floor_exps=numbers,
    )


def _row(op: str, dtype: torch.dtype, backward: bool) -> Row:
    scan, judged = op == "selective_scan", dtype == torch.float32
    case = _scan_case if scan else _conv_case
    musts = {"torch, chunks of 64 at once": 20.0, "torch, step by step": 10.0}
    aims = {"selective_scan": (25.0, 90.0), "causal_conv1d": (2.8, None)}[op]
    aims_cuda = {"selective_scan": (0.08, 0.2), "causal_conv1d": (0.014, None)}[op]
    must = musts if scan else {} if backward else {"F.conv1d + silu": 8.0}
    return Row(
        op,
        "voxel_mamba_waymo",
        partial(case, dtype, backward),
        ("tiny", "f1", "f10", "w180"),
        tolerance=1e-5 if judged else 1e-2,
        direction="backward" if backward else "forward",
        required=must if judged else {},
        dtype=str(dtype).removeprefix("torch."),
        aim_ms=aims[backward] if judged else None,
        aim_ms_cuda=aims_cuda[backward],
    )


ROWS = (
    Row("curve_order", "voxel_mamba_waymo", _order_case, ("tiny", "f1", "f10", "w180")),
    *(
        _row(op, dtype, backward)
        for op in ("causal_conv1d", "selective_scan")
        for dtype in (torch.float32, torch.bfloat16)
        for backward in (False, True)
    ),
)
