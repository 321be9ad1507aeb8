"""Replays operators of Voxel Mamba: places on the Hilbert curve, their order, selective scan."""

import torch
from torch import Tensor

from perception3d.ops import curve_index, curve_order, selective_scan
from perception3d.parity.case import Case, CaseError

Results = dict[str, object]

_OPTIONAL = ("D", "delta_bias")


def replay_hilbert_index(case: Case, device: torch.device) -> Results:
    """Replay kind hilbert_index: the place of every cell on the curve."""
    if case.config.get("template_z") is not None:
        raise CaseError("tables cut after template_z layers: indices are computed, there is none")
    coords = case.tensor("in.coords", device).int()
    index = curve_index(coords, case.config["rank"], shift=case.config["shift"])
    return {"out.index": index}


def replay_serialisation(case: Case, device: torch.device) -> Results:
    """Replay kind serialisation: the order of every block and scale."""
    results: Results = {}
    for call in case.config["calls"]:
        coords = case.tensor(call["coords"], device).int()
        frames = int(coords[:, 0].max()) + 1
        order, inverse, _ = curve_order(coords, frames, call["rank"], shift=call["shift"])
        prefix = f"out.block{call['block']}.{call['scale']}"
        results[f"{prefix}.perm"] = order
        results[f"{prefix}.inverse"] = inverse
        results[f"{prefix}.index"] = curve_index(coords, call["rank"], shift=call["shift"])
    return results


def replay_selective_scan(case: Case, device: torch.device) -> Results:
    """Replay kind selective_scan: result, last state and gradients, with and without the gate."""
    results: Results = {}
    for variant in case.config["variants"]:
        results.update(_scan_variant(case, device, variant))
    return results


def _scan_variant(case: Case, device: torch.device, variant: str) -> Results:
    names = ["u", "delta", "A", "B", "C"] + [
        name for name in _OPTIONAL if f"in.{name}" in case.arrays
    ]
    names += ["z"] if variant == "z" else []
    leaves = {name: case.tensor(f"in.{name}", device).requires_grad_() for name in names}
    batch, _, length = leaves["u"].shape
    u, delta, b, c = (_to_rows(leaves[name]) for name in ("u", "delta", "B", "C"))
    y, state = selective_scan(
        u,
        delta,
        leaves["A"],
        b,
        c,
        length * torch.arange(batch + 1, device=device),
        skip=leaves.get("D"),
        gate=_to_rows(leaves["z"]) if variant == "z" else None,
        delta_bias=leaves.get("delta_bias"),
        delta_softplus=case.config["delta_softplus"],
        return_state=True,
    )
    y = y.reshape(batch, length, -1).transpose(1, 2)
    grads = torch.autograd.grad(y, list(leaves.values()), case.tensor("in.grad_out", device))
    results: Results = {f"out.{variant}.y": y, f"out.{variant}.last_state": state}
    for name, grad in zip(leaves, grads, strict=True):
        results[f"grad.{variant}.in.{name}"] = grad
    return results


def _to_rows(channels_first: Tensor) -> Tensor:
    """(B, C, L) to (B * L, C)."""
    return channels_first.transpose(1, 2).flatten(0, 1)
