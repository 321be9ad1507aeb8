"""Other ways to scan sequences and to convolve along them."""

import importlib
import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64


@dataclass(frozen=True)
class ScanInputs:
    """One sequence whose rows lie in the order of the walk: peers need not gather or scatter.

    Attributes:
        u, delta, gate: (L, D); delta before bias and softplus.
        B, C: (L, N), dtype of u.
        A: (D, N); skip, delta_bias: (D,); float32, or float64 for float64 rows.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    skip: Tensor
    gate: Tensor
    delta_bias: Tensor


def step_by_step(inputs: ScanInputs) -> Tensor:
    """One step after the other, with no (L, D, N) and as few operations as we could find."""
    u, delta, b, c = _numbers(inputs)
    state = torch.zeros_like(inputs.A)
    found = []
    for t in range(u.shape[0]):
        decay = torch.exp(delta[t, :, None] * inputs.A)
        state = torch.addcmul((delta[t] * u[t])[:, None] * b[t], decay, state)
        found.append(state @ c[t])
    return _finish(inputs, torch.stack(found), u)


def reference(inputs: ScanInputs) -> Tensor:
    """The steps of selective_scan_ref, the Mamba repository's only form for CPUs.

    Its layout is (1, D, L).  All decays and all inputs of the states are made first, (1, D, L, N)
    each, and then taken step after step.
    """
    u, delta, b, c = (rows.T.contiguous()[None] for rows in _numbers(inputs))
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, inputs.A))
    driven = torch.einsum("bdl,bnl,bdl->bdln", delta, b, u)
    state = torch.zeros_like(inputs.A)[None]
    found = []
    for t in range(u.shape[2]):
        state = decay[:, :, t] * state + driven[:, :, t]
        found.append(torch.einsum("bdn,bn->bd", state, c[:, :, t]))
    return _finish(inputs, torch.stack(found, 2)[0].T, u[0].T)


def chunked(inputs: ScanInputs) -> Tensor:
    """All chunks of 64 steps at once: local end states, a scan over chunks, then the result.

    Never more than (L / 64, D, N) at a time, which stays in the cache; the exponentials are taken
    twice, because keeping them would cost (L, D, N).
    """
    u, delta, b, c = (_to_chunks(rows) for rows in _numbers(inputs))
    driven = delta * u
    local = _walk_chunks(None, delta, driven, b, None, inputs.A)[1]
    whole = torch.exp(delta.sum(1)[:, :, None] * inputs.A)  # (chunks, D, N)
    state = torch.zeros_like(inputs.A)
    entries = []
    for decay, end in zip(whole, local, strict=True):
        entries.append(state)
        state = torch.addcmul(end, decay, state)
    y, _ = _walk_chunks(torch.stack(entries), delta, driven, b, c, inputs.A)
    length = inputs.u.shape[0]
    return _finish(inputs, y.flatten(0, 1)[:length], u.flatten(0, 1)[:length])


def _walk_chunks(
    state: Tensor | None, delta: Tensor, driven: Tensor, b: Tensor, c: Tensor | None, decay: Tensor
) -> tuple[Tensor, Tensor]:
    """Take all chunks through their steps; return y, if c is given, and the states at the end."""
    found = []
    for t in range(CHUNK):
        entering = driven[:, t, :, None] * b[:, t, None, :]
        if state is not None:
            kept = torch.exp(delta[:, t, :, None] * decay)
            entering = torch.addcmul(entering, kept, state)
        state = entering
        if c is not None:
            found.append(torch.matmul(state, c[:, t, :, None])[..., 0])
    assert state is not None
    return (torch.stack(found, 1) if found else state.new_zeros(0)), state


def _to_chunks(rows: Tensor) -> Tensor:
    """(L, columns) to (chunks, 64, columns); a delta of 0 behind the last row changes no state."""
    padded = F.pad(rows, (0, 0, 0, -rows.shape[0] % CHUNK))
    return padded.reshape(-1, CHUNK, rows.shape[1])


def _numbers(inputs: ScanInputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = inputs.A.dtype
    delta = F.softplus(inputs.delta.to(dtype) + inputs.delta_bias)
    return inputs.u.to(dtype), delta, inputs.B.to(dtype), inputs.C.to(dtype)


def _finish(inputs: ScanInputs, y: Tensor, u: Tensor) -> Tensor:
    y = torch.addcmul(y, inputs.skip, u) * F.silu(inputs.gate.to(y.dtype))
    return y.to(inputs.u.dtype)


def mamba_ssm_is_usable(device: torch.device) -> bool:
    """Say whether the Mamba repository's own kernel can run: CUDA only."""
    return device.type == "cuda" and importlib.util.find_spec("mamba_ssm") is not None


def mamba_ssm(inputs: ScanInputs) -> Tensor:
    """The kernel of the Mamba repository, whose layout is (1, D, L), L contiguous."""
    interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")

    u, delta, gate, b, c = (
        rows.T.contiguous()[None]
        for rows in (inputs.u, inputs.delta, inputs.gate, inputs.B, inputs.C)
    )
    y: Tensor = interface.selective_scan_fn(
        u, delta, inputs.A, b, c, inputs.skip, gate, inputs.delta_bias, delta_softplus=True
    )
    return y[0].T


def conv1d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """torch's depth-wise convolution and SiLU; x: (1, D, L) contiguous, the layout it likes."""
    channels, taps = weight.shape
    y = F.conv1d(x, weight[:, None], bias, padding=taps - 1, groups=channels)
    return F.silu(y[..., : x.shape[2]])


def shifted_rows(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Multiply and add (L, D) rows shifted by one tap after the other, then SiLU."""
    taps = weight.shape[1]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    y = torch.addcmul(bias, padded[: x.shape[0]], weight[:, 0])
    for tap in range(1, taps):
        y = torch.addcmul(y, padded[tap : tap + x.shape[0]], weight[:, tap])
    return F.silu(y)
