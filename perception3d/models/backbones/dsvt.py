"""DSVT: Dynamic Sparse Voxel Transformer with rotated sets (CVPR 2023, Haiyang-W/DSVT)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perception3d.layers.attention import SetAttention, SetEncoderLayer
from perception3d.layers.pooling import AttentionPooling, LinearPooling, MaxPooling
from perception3d.layers.position import PositionEmbedding
from perception3d.models.backbones.dsvt_stage import (
    Cells,
    DSVTStage,
    check_choice,
    check_partition,
    check_stages,
)
from perception3d.structures import SetPartition, SparseVoxels, TableRows, WindowSpec

POSITIONS = ("as_released", "corrected")
REDUCTIONS = ("attention", "maxpool", "linear")


class DSVTBlock(nn.Module):
    """Two set encoder layers, on y-major and on x-major sets, and a residual norm.

    Args:
        sets: windows that are cut into sets.
        positions: windows whose cells the position embedding of each layer describes.
        set_size: slots of a set.
        make_layer: returns a new encoder layer.
        make_position: returns a new position embedding for a window size (z, y, x).
        channels: width C.
    """

    def __init__(
        self,
        sets: WindowSpec,
        positions: tuple[WindowSpec, WindowSpec],
        set_size: int,
        make_layer: Callable[[], SetEncoderLayer],
        make_position: Callable[[Cells], PositionEmbedding],
        channels: int,
    ) -> None:
        super().__init__()
        self.set_windows = sets
        self.position_windows = positions
        self.set_size = set_size
        self.positions = nn.ModuleList(make_position(spec.size) for spec in positions)
        self.layers = nn.ModuleList(make_layer() for _ in positions)
        self.norm = nn.LayerNorm(channels)

    def forward(self, voxels: SparseVoxels, save_memory: bool = False) -> SparseVoxels:
        """Transform N voxels with C channels; `save_memory` recomputes in the backward pass."""
        inputs = (
            voxels.features,
            *(
                embedding(voxels.windows(spec).cell_in_window)
                for embedding, spec in zip(self.positions, self.position_windows, strict=True)
            ),
        )
        sets = voxels.sets(self.set_windows, self.set_size)
        # Position embeddings stay outside: run twice, they would count twice in the statistics.
        features = (
            checkpoint(self._transform, sets, *inputs, use_reentrant=False)
            if save_memory
            else self._transform(sets, *inputs)
        )
        return voxels.with_features(features)

    def _transform(
        self, sets: SetPartition, features: Tensor, *positions: Tensor | TableRows
    ) -> Tensor:
        whole = (features, self.norm)  # around all layers
        for number, layer in enumerate(self.layers):
            after = (whole,) if number == len(self.layers) - 1 else ()
            order = sets.order[number]
            features = layer(features, positions[number], order, sets.offsets, after)
        return features


class DSVTStageModule(nn.Module):
    """The blocks of one stage, then the pooling.

    Args:
        blocks: blocks.
        pooling: what follows them, None after the last stage.
    """

    def __init__(self, blocks: Iterable[DSVTBlock], pooling: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.pooling = pooling

    def forward(self, voxels: SparseVoxels, save_memory: bool = False) -> SparseVoxels:
        """Transform N voxels with C channels; with pooling into fewer, coarser ones."""
        for block in self.blocks:
            voxels = block(voxels, save_memory)
        return voxels if self.pooling is None else self.pooling(voxels)


class DSVT(nn.Module):
    """Backbone of set attention inside windows, for pillars (one stage) or voxels (several).

    Args:
        grid_size: cells (x, y, z) of the first stage; must be the voxelizer's.
        stages: settings per stage.
        channels: width C, one for all stages or one per stage (only `reduction="linear"` can
            change it).
        heads: attention heads, a divisor of C.
        feedforward: hidden width of the feed-forward networks, None for 2 C.
        hybrid_factor: window of partition 1 over window of partition 0 (x, y, z).
        position: "as_released": layer i of a block embeds positions in partition i, although its
            sets come from partition (block number mod 2); all published weights need this
            (Haiyang-W/DSVT, issue 50). "corrected": positions in the partition of the sets.
        normalize_pos: scale positions to about -pi .. pi.
        activation: "gelu" or "relu".
        reduction: pooling between stages, "attention", "maxpool" or "linear".
        pooling_heads: heads of the attention pooling; published weights have 8.
        checkpoint: recompute blocks in the backward pass to save memory.
        flat_output: demand that the last stage has one cell in z, as a BEV neck needs.

    Raises:
        ValueError: settings that do not fit each other.
    """

    def __init__(  # noqa: PLR0913  # mirrors the published settings one to one
        self,
        grid_size: Cells,
        stages: Sequence[DSVTStage],
        channels: int | Sequence[int] = 192,
        heads: int = 8,
        feedforward: int | None = None,
        *,
        hybrid_factor: Cells = (1, 1, 1),
        position: str = "as_released",
        normalize_pos: bool = False,
        activation: str = "gelu",
        reduction: str = "attention",
        pooling_heads: int = 8,
        checkpoint: bool = False,
        flat_output: bool = True,
    ) -> None:
        super().__init__()
        check_choice("position", position, POSITIONS)
        check_choice("reduction", reduction, REDUCTIONS)
        grids = check_stages(grid_size, stages, hybrid_factor)
        if flat_output and grids[-1][2] != 1:
            raise ValueError(
                "DSVT: the last stage must have one cell in z; pooling "
                f"{[stage.pool_stride for stage in stages[:-1]]} leaves {grids[-1][2]}"
            )
        widths = _widths(channels, len(stages), reduction)
        self.grid_size = grids[0]
        self.in_channels, self.out_channels = widths[0], widths[-1]
        self.checkpoint = checkpoint
        self.stages = nn.ModuleList()
        block_number = count()  # over all stages
        for number, (stage, width) in enumerate(zip(stages, widths, strict=True)):
            partitions = stage.partitions(grids[number], hybrid_factor)
            for spec in partitions:
                check_partition(spec, grids[number])
            blocks = [
                DSVTBlock(
                    partitions[own],
                    partitions if position == "as_released" else (partitions[own],) * 2,
                    stage.set_size,
                    partial(SetEncoderLayer, width, heads, feedforward or 2 * width, activation),
                    partial(PositionEmbedding, width, normalize=normalize_pos),
                    width,
                )
                for own in (next(block_number) % 2 for _ in range(stage.blocks))
            ]
            pooling = _pooling(stage, widths[number : number + 2], reduction, pooling_heads)
            self.stages.append(DSVTStageModule(blocks, pooling))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        """Transform voxels.

        Args:
            voxels: N voxels with C channels on `grid_size`.

        Returns:
            The voxels of the last stage, rows ascending by (b, x, y, z) if there was pooling, else
            as they came.

        Raises:
            ValueError: another grid or width.
        """
        width, height, depth = self.grid_size
        if voxels.spatial_shape != (depth, height, width):
            raise ValueError(
                f"DSVT: voxels must lie on a grid of {(depth, height, width)} cells (z, y, x), "
                f"got {voxels.spatial_shape}"
            )
        if voxels.features.shape[1] != self.in_channels:
            raise ValueError(
                f"DSVT: features must be (N, {self.in_channels}), "
                f"got {tuple(voxels.features.shape)}"
            )
        save_memory = self.checkpoint and self.training and torch.is_grad_enabled()
        for stage in self.stages:
            voxels = stage(voxels, save_memory)
        return voxels

    def frozen_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what the published trainings never updated, by accident of their optimiser.

        These are the query, key and value projections and the position table of the pooling
        (open-mmlab/OpenPCDet, issue 960).  They did receive gradients and counted in the norm that
        clips gradients, so they keep requires_grad=True: the optimiser setting `official_frozen`
        leaves them out.  By default everything is trained.
        """
        for module in self.modules():
            if isinstance(module, SetAttention | AttentionPooling):
                yield from module.qkv.parameters()
            if isinstance(module, AttentionPooling):
                yield module.position


def _widths(channels: int | Sequence[int], num_stages: int, reduction: str) -> list[int]:
    widths = [channels] * num_stages if isinstance(channels, int) else list(channels)
    if len(widths) != num_stages:
        raise ValueError(
            f"DSVT: channels must be one width or one per stage ({num_stages}), got {channels}"
        )
    if reduction != "linear" and len(set(widths)) > 1:
        raise ValueError(
            f"DSVT: only reduction='linear' can change the width between stages, got {channels} "
            f"with {reduction!r}"
        )
    return widths


def _pooling(
    stage: DSVTStage, widths: Sequence[int], reduction: str, heads: int
) -> nn.Module | None:
    """Return the pooling after a stage, None after the last."""
    if stage.pool_stride is None:
        return None
    x, y, z = stage.pool_stride
    if reduction == "maxpool":
        return MaxPooling((z, y, x))
    if reduction == "linear":
        return LinearPooling(widths[0], widths[1], (z, y, x))
    return AttentionPooling(widths[0], (z, y, x), heads)
