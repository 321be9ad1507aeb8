"""Selective state space block: Mamba over the tokens of many sequences at once."""

import math

import torch
from torch import Tensor, nn

from perception3d.ops.mamba_mixer import MambaParameters, NormParameters, mamba_mixer
from perception3d.structures import CurveOrder

# state-spaces/mamba: mamba_ssm/modules/mamba_simple.py
_STEP_RANGE = (1e-3, 1e-1)
_STEP_FLOOR = 1e-4


class CausalConv(nn.Module):
    """Weights of a depth-wise convolution along sequences, which sees no later token.

    Args:
        channels: width D.
        taps: tokens K that a token sees, itself among them.
    """

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, taps))  # torch's layout of Conv1d
        self.bias = nn.Parameter(torch.empty(channels))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(taps**-0.5), taps**-0.5)


class StateSpaceBlock(nn.Module):
    """RMSNorm and a Mamba mixer; no residual is added (gwenzhang/Voxel-Mamba drops it).

    Tokens stay in their own row order; the curve tells which rows form a sequence, and in which
    order.  State and convolution start anew at every sequence, so any number of frames is one
    call.

    Args:
        channels: width C.
        states: states N per inner channel.
        taps: length K of the causal convolution.
        expand: inner width D over C.
        step_rank: width R of the projection that steps are made of, None: ceil(C / 16).
        reverse: scan every sequence from its end.
        norm_eps: of the RMSNorm.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self,
        channels: int,
        *,
        states: int = 16,
        taps: int = 4,
        expand: int = 2,
        step_rank: int | None = None,
        reverse: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        rank = math.ceil(channels / 16) if step_rank is None else step_rank
        if min(channels, states, taps, expand, rank) < 1:
            raise ValueError(
                "StateSpaceBlock: channels, states, taps, expand and step_rank must be >= 1, got "
                f"{channels}, {states}, {taps}, {expand}, {rank}"
            )
        inner = expand * channels
        self.splits = (rank, states, states)
        self.reverse = reverse
        # A = -exp(A_log) starts at -1 .. -N, the real diagonal of S4D.
        self.A_log = nn.Parameter(torch.arange(1, states + 1).float().log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = CausalConv(inner, taps)
        self.x_proj = nn.Linear(inner, rank + 2 * states, bias=False)
        self.step_proj = nn.Linear(rank, inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        self.norm = nn.RMSNorm(channels, eps=norm_eps)
        self.norm_eps = norm_eps
        self._reset_steps()

    @torch.no_grad()
    def _reset_steps(self) -> None:
        """Let softplus(bias) be spread evenly over the logarithm of the step range."""
        rank, inner = self.step_proj.in_features, self.step_proj.out_features
        nn.init.uniform_(self.step_proj.weight, -(rank**-0.5), rank**-0.5)
        low, high = (math.log(bound) for bound in _STEP_RANGE)
        steps = (torch.rand(inner) * (high - low) + low).exp().clamp(min=_STEP_FLOOR)
        self.step_proj.bias.copy_(steps + torch.log(-torch.expm1(-steps)))

    def undecayed_parameters(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Return the parameters that weight decay would pull to no purpose.

        Decay of A_log draws every time constant to that of A = -1, decay of the skip weights
        draws the shortest path through the block to zero.
        """
        return self.A_log, self.skip

    def forward(
        self,
        features: Tensor,
        curve: CurveOrder,
        *,
        position: Tensor | None = None,
        after: nn.LayerNorm | None = None,
    ) -> Tensor:
        """Mix tokens along their sequences.

        Args:
            features: (L, C).
            curve: which tokens form a sequence.
            position: (L, C) embeddings to add to the features.
            after: norm of the result.

        Returns:
            (L, C), rows as `features`.
        """
        norm = None if after is None else NormParameters(after.weight, after.bias, after.eps)
        return mamba_mixer(
            features,
            curve.offsets,
            self.mixer(),
            added=position,
            order=curve.order,
            reverse=self.reverse,
            after=norm,
        )

    def mixer(self) -> MambaParameters:
        """Return the parameters as the operator takes them."""
        return MambaParameters(
            self.norm.weight,
            self.in_proj.weight,
            _at_least_float(self.conv.weight.squeeze(1)),
            _at_least_float(self.conv.bias),
            self.x_proj.weight,
            self.step_proj.weight,
            _at_least_float(self.step_proj.bias),
            -torch.exp(_at_least_float(self.A_log)),
            _at_least_float(self.skip),
            self.out_proj.weight,
            self.norm_eps,
        )


def _at_least_float(parameter: Tensor) -> Tensor:
    """Widen halves: decay and step sizes live on a logarithmic scale."""
    return parameter.float() if parameter.dtype in (torch.float16, torch.bfloat16) else parameter
