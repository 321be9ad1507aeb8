"""Voxel Mamba: a frame is one sequence on a space-filling curve (NeurIPS 2024, arXiv 2406.10700).

As gwenzhang/Voxel-Mamba was released: pcdet/models/backbones_3d/voxel_mamba_waymo.py.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from perception3d.layers.normalization import RowBatchNorm
from perception3d.layers.position import ImplicitWindowEmbedding
from perception3d.layers.recompute import recompute_in_backward
from perception3d.layers.residual import add_residual, normalise
from perception3d.layers.sparse_conv import (
    NORM_EPS,
    NORM_MOMENTUM,
    InverseConv3d,
    SparseConv3d,
    SparseConvBlock,
    SparseSkipBlock,
    SubMConv3d,
)
from perception3d.layers.state_space import StateSpaceBlock
from perception3d.models.backbones.voxel_mamba_stage import (
    VoxelMambaStage,
    check_heights,
    curve_specs,
    stage_shapes,
)
from perception3d.structures import CurveSpec, SparseVoxels

INITS = ("official", "s4d")
PUBLISHED_STAGES = (
    VoxelMambaStage(2, stride=1, kernel=3),
    VoxelMambaStage(2, stride=2, kernel=3),
    VoxelMambaStage(2, stride=4, kernel=5),
)

Embed = Callable[[SparseVoxels], Tensor]


class DualScaleBlock(nn.Module):
    """A forward scan of the coarse scale and a backward scan of the full one, added up.

    The only residual is that of the whole block: what the scans take in, position embeddings
    included, is not added to what they give (so the released code; its scans drop their
    residuals).

    Args:
        channels: width C.
        stage: scales.
        curves: of the full and of the coarse scale.
        make_scan: returns a new state space block; `reverse` is its argument.
    """

    def __init__(
        self,
        channels: int,
        stage: VoxelMambaStage,
        curves: tuple[CurveSpec, CurveSpec],
        make_scan: Callable[[bool], StateSpaceBlock],
    ) -> None:
        super().__init__()
        geometry = (channels, channels, stage.kernel, stage.stride, stage.padding)
        self.fine_curve, self.coarse_curve = curves
        self.coarse_scan = make_scan(False)
        self.fine_scan = make_scan(True)
        self.down = SparseConvBlock(SparseConv3d(*geometry)) if stage.stride > 1 else None
        self.local = SparseSkipBlock(channels)
        self.up = SparseConvBlock(
            SubMConv3d(channels, channels, stage.kernel)
            if self.down is None
            else InverseConv3d(*geometry)
        )
        self.norm = RowBatchNorm(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        self.coarse_norm = nn.LayerNorm(channels)
        self.fine_norm = nn.LayerNorm(channels)

    def forward(self, voxels: SparseVoxels, embed: Embed) -> SparseVoxels:
        """Transform N voxels with C channels.

        Args:
            voxels: full scale.
            embed: position embedding (N, C) of voxels; called for the coarse scale first.
        """
        coarse = self.local(voxels if self.down is None else self.down(voxels))
        down = self.coarse_scan(
            coarse.features,
            coarse.curve(self.coarse_curve),
            position=embed(coarse),
            after=self.coarse_norm,
        )
        full = self.fine_scan(
            voxels.features,
            voxels.curve(self.fine_curve),
            position=embed(voxels),
            after=self.fine_norm,
        )
        coarse = coarse.with_features(down)
        up = self.up(coarse) if self.down is None else self.up(coarse, voxels)
        both = add_residual(up.features, full)
        return voxels.with_features(normalise(add_residual(both, voxels.features), self.norm))


class VoxelMamba(nn.Module):
    """Backbone of state space scans along Hilbert curves, each frame one sequence.

    After every stage a convolution halves the grid in z; before the last of them stands one
    more, if `extra_reduction`.  One cell in z must be left, for a BEV neck.

    Args:
        voxel_size: size of a voxel (x, y, z), m.
        point_cloud_range: (x, y, z, x, y, z) low and high corner, m.
        stages: settings per stage; default: as published.
        channels: width C.
        states, taps, expand: of the state space blocks.
        curve: "hilbert", or "z_order".
        rank: bits per axis of the full-scale curve; 2^rank cells must hold the grid.
        shifts: cells by which each block shifts its curves; None: 0, 1, 2, ...
        window: cells along an edge of the windows of the position embedding.
        extra_reduction: one more halving in z before the last.
        dropped_layers: layers of voxels on top of the grid that may reach no output; the
            published grids of 32 layers lose one.
        init: "official": what the released code really starts with, Xavier noise in place of
            the S4D decay rates; "s4d": every layer as its own paper has it.
        checkpoint: recompute blocks in the backward pass to save memory.

    Raises:
        ValueError: settings that do not fit each other.
    """

    def __init__(  # noqa: PLR0913  # mirrors the published settings one to one
        self,
        voxel_size: tuple[float, float, float],
        point_cloud_range: tuple[float, float, float, float, float, float],
        stages: Sequence[VoxelMambaStage] = PUBLISHED_STAGES,
        channels: int = 128,
        *,
        states: int = 16,
        taps: int = 4,
        expand: int = 2,
        curve: str = "hilbert",
        rank: int = 9,
        shifts: Sequence[int] | None = None,
        window: int = 12,
        extra_reduction: bool = True,
        dropped_layers: int = 0,
        init: str = "official",
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if init not in INITS:
            raise ValueError(f"VoxelMamba: init must be one of {INITS}, got {init!r}")
        if not stages:
            raise ValueError("VoxelMamba: stages must hold at least one VoxelMambaStage")
        num_blocks = sum(stage.blocks for stage in stages)
        shifts = range(num_blocks) if shifts is None else shifts
        if len(shifts) != num_blocks:
            raise ValueError(
                f"VoxelMamba: shifts must be one per block ({num_blocks}), got {len(shifts)}"
            )
        reductions = [1] * len(stages)
        reductions[-1] += int(extra_reduction)
        grid = check_heights(voxel_size, point_cloud_range, sum(reductions), dropped_layers)
        width, height, depth = self.grid_size = grid
        self.in_channels = self.out_channels = channels
        self.checkpoint = checkpoint
        self.blocks_per_stage = tuple(stage.blocks for stage in stages)
        shapes = stage_shapes(depth, height, width, reductions)
        self.blocks = nn.ModuleList()
        for stage, shape in zip(stages, shapes, strict=False):
            for _ in range(stage.blocks):
                curves = curve_specs(stage, shape, rank, shifts[len(self.blocks)], curve)
                self.blocks.append(
                    DualScaleBlock(
                        channels,
                        stage,
                        curves,
                        lambda reverse: StateSpaceBlock(
                            channels, states=states, taps=taps, expand=expand, reverse=reverse
                        ),
                    )
                )
        self.reductions = nn.ModuleList(_reduction(channels) for _ in stages)
        self.extra_reduction = _reduction(channels) if extra_reduction else None
        self.position = ImplicitWindowEmbedding(channels, window)
        if init == "official":
            self._reset_as_released()
        self._scale_outputs()

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        """Transform voxels.

        Args:
            voxels: N voxels with C channels on `grid_size`.

        Returns:
            Voxels with one cell in z and C channels.  Their rows come in no particular order; a
            frame whose voxels no convolution in z sees has none.

        Raises:
            ValueError: another grid or width.
        """
        width, height, depth = self.grid_size
        if voxels.spatial_shape != (depth, height, width):
            raise ValueError(
                f"VoxelMamba: voxels must lie on a grid of {(depth, height, width)} cells "
                f"(z, y, x), got {voxels.spatial_shape}"
            )
        if voxels.features.shape[1] != self.in_channels:
            raise ValueError(
                f"VoxelMamba: features must be (N, {self.in_channels}), "
                f"got {tuple(voxels.features.shape)}"
            )
        # Released with a layer on top that no voxel is in; heights in the embedding count it.
        shape = (depth + 1, height, width)
        voxels = SparseVoxels(voxels.features, voxels.coords, shape, voxels.batch_size)
        save_memory = self.checkpoint and self.training and torch.is_grad_enabled()
        blocks = iter(self.blocks)
        for stage, count in enumerate(self.blocks_per_stage):
            embed = self.position if self.training else _once_per_scale(self.position)
            for _ in range(count):
                voxels = self._run(next(blocks), voxels, embed, save_memory)
            if self.extra_reduction is not None and stage == len(self.blocks_per_stage) - 1:
                voxels = self.extra_reduction(voxels)
            voxels = self.reductions[stage](voxels)
        return voxels

    def _run(
        self, block: nn.Module, voxels: SparseVoxels, embed: Embed, save_memory: bool
    ) -> SparseVoxels:
        if not save_memory:
            result: SparseVoxels = block(voxels, embed)
            return result

        def transform(features: Tensor) -> Tensor:
            transformed: SparseVoxels = block(voxels.with_features(features), embed)
            return transformed.features

        modules = (block, self.position)
        return voxels.with_features(
            recompute_in_backward(transform, voxels.features, modules=modules)
        )

    @torch.no_grad()
    def _reset_as_released(self) -> None:
        """Draw everything of more than one dimension as the released code does.

        It calls Xavier's rule on the decay rates, the step projections and the causal
        convolutions too; and on sparse weights, whose second axis it takes for the inputs.
        """
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        for linear in (self.position.linear1, self.position.linear2):
            nn.init.zeros_(linear.bias)

    @torch.no_grad()
    def _scale_outputs(self) -> None:
        """Draw the output projections anew, smaller the more blocks there are (as GPT-2)."""
        for module in self.modules():
            if isinstance(module, StateSpaceBlock):
                nn.init.kaiming_uniform_(module.out_proj.weight, a=math.sqrt(5))
                module.out_proj.weight /= math.sqrt(len(self.blocks))


def _reduction(channels: int) -> SparseConvBlock:
    """Return the convolution that halves the grid in z."""
    return SparseConvBlock(SparseConv3d(channels, channels, (3, 1, 1), (2, 1, 1)))


def _once_per_scale(position: ImplicitWindowEmbedding) -> Embed:
    """Return the embedding with a memory for the blocks of one stage, which see it again."""
    known: dict[object, Tensor] = {}

    def embed(voxels: SparseVoxels) -> Tensor:
        if voxels.cache not in known:
            known[voxels.cache] = position(voxels)
        return known[voxels.cache]

    return embed
