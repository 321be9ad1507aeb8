"""Inputs that the tests of scans and causal convolutions share."""

from dataclasses import dataclass, field

import torch


def offsets_of(lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


@dataclass
class ScanCase:
    """Arguments of selective_scan: tensors by position, the rest by name."""

    tensors: list
    offsets: torch.Tensor
    named: dict = field(default_factory=dict)

    def leaves(self):
        """The same case whose real tensors ask for gradients, and those tensors."""
        tensors = [tensor.detach().clone().requires_grad_() for tensor in self.tensors]
        named = {
            name: value.detach().clone().requires_grad_() if is_real(value) else value
            for name, value in self.named.items()
        }
        return ScanCase(tensors, self.offsets, named), [
            *tensors,
            *(value for value in named.values() if is_real(value)),
        ]

    def double(self):
        """The same case in float64."""
        named = {name: v.double() if is_real(v) else v for name, v in self.named.items()}
        return ScanCase([tensor.double() for tensor in self.tensors], self.offsets, named)

    def run(self, scan, **more):
        return scan(*self.tensors, self.offsets, **self.named, **more)


def is_real(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def scan_case(lengths, channels, states, *, dtype=torch.float32, seed=0, plain=False, **named):
    """A case with every option, or with none; order and reverse as named."""
    generator = torch.Generator().manual_seed(seed)
    length = sum(lengths)
    number = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=number)

    delta = normal(length, channels)
    decay = -8 * torch.rand(channels, states, generator=generator, dtype=number)
    rows = [normal(length, channels), delta.abs() * 0.1 if plain else delta - 1]
    rows = [*rows, normal(length, states), normal(length, states)]
    u, delta, b, c = (row.to(dtype) for row in rows)
    if not plain:
        options = {
            "skip": normal(channels),
            "gate": normal(length, channels).to(dtype),
            "delta_bias": normal(channels),
            "delta_softplus": True,
        }
        named = {**options, **named}
    if named.get("order") is True:
        named["order"] = torch.randperm(length, generator=generator)
    return ScanCase([u, delta, decay, b, c], offsets_of(lengths), named)


def results_and_gradients(case, scan):
    """[y, last state, gradient of every real input], each weighted with a fixed upstream."""
    case, leaves = case.leaves()
    y, state = case.run(scan, return_state=True)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.dtype)
    loss = (y * weights).sum()
    return [y.detach(), state, *torch.autograd.grad(loss, leaves, materialize_grads=True)]


def conv_case(lengths, channels, taps, *, dtype=torch.float32, seed=0, **named):
    """Arguments of causal_conv1d: (x, weight, bias), offsets, and those by name."""
    generator = torch.Generator().manual_seed(seed)
    number = torch.float64 if dtype == torch.float64 else torch.float32
    shapes = ((sum(lengths), channels), (channels, taps), (channels,))
    x, weight, bias = (torch.randn(s, generator=generator, dtype=number) for s in shapes)
    if named.get("order") is True:
        named["order"] = torch.randperm(sum(lengths), generator=generator)
    return [x.to(dtype), weight, bias], offsets_of(lengths), {"activation": "silu", **named}


def conv_results(tensors, offsets, named, conv):
    """[y, gradient of x, weight and, where there is one, bias], with a fixed upstream."""
    leaves = [None if t is None else t.detach().clone().requires_grad_() for t in tensors]
    y = conv(*leaves, offsets, **named)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.dtype)
    wanted = [leaf for leaf in leaves if leaf is not None]
    loss = (y * weights).sum()
    return [y.detach(), *torch.autograd.grad(loss, wanted, materialize_grads=True)]


def assert_near(ours, wanted, tolerance):
    """Every tensor within `tolerance` of the largest number of the wanted one."""
    for number, (a, b) in enumerate(zip(ours, wanted, strict=True)):
        assert a.shape == b.shape
        scale = float(b.double().abs().max()) if b.numel() else 0.0
        error = float((a.double() - b.double()).abs().max()) if b.numel() else 0.0
        assert error <= tolerance * max(scale, 1e-3), f"result {number}: {error} of {scale}"
