"""TransFusionHead: queries at the peaks of a heat map, refined by attention (CVPR 2022)."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception3d.checks import FLOATS, check_tensor
from perception3d.models.heads.bev_grid import BevGrid
from perception3d.models.heads.transfusion_attention import QueryTransformer
from perception3d.models.heads.transfusion_branches import (
    HeatmapConvs,
    TransFusionLayers,
    TransFusionOutput,
    query_branches,
)
from perception3d.models.heads.transfusion_code import QueryCode
from perception3d.models.heads.transfusion_decode import TransFusionDecoder
from perception3d.models.heads.transfusion_loss import TransFusionLoss
from perception3d.models.heads.transfusion_queries import QueryRule, pick_queries
from perception3d.models.heads.transfusion_targets import HungarianTargets, QueryTargets
from perception3d.structures import Detections, Targets


class TransFusionHead(nn.Module):
    """A heat map, queries at its peaks, one box per query.

    Three published networks differ in the meaning of equal tensors; the defaults are OpenPCDet's,
    which BEVFusion shares.  `layers`, `loss` and `decoder` make DSVT's and ScatterFormer's of it
    (`configs/`).

    Args:
        in_channels: channels of the BEV map.
        classes: class names in label order.
        grid: cells of the BEV map.
        queries: which peaks of the heat map become queries.
        layers: shape of the network.
        targets: how boxes are assigned to queries.
        loss: weights of the losses.
        decoder: how predictions become detections.

    Raises:
        ValueError: class names that are not in `classes`, or settings that do not fit.
    """

    every_cell: Tensor

    def __init__(
        self,
        in_channels: int,
        classes: Sequence[str],
        grid: BevGrid,
        queries: QueryRule | None = None,
        layers: TransFusionLayers | None = None,
        targets: HungarianTargets | None = None,
        loss: TransFusionLoss | None = None,
        decoder: TransFusionDecoder | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.classes = tuple(classes)
        self.grid = grid
        self.rule = queries or QueryRule()
        self.layers = layers or TransFusionLayers()
        self.code = QueryCode(grid, self.layers.height)
        self.target_maker = targets or HungarianTargets()
        self.loss_maker = loss or TransFusionLoss()
        self.decoder = decoder or TransFusionDecoder()
        self.rule.check(self.classes, grid.size)
        self.decoder.check_classes(self.classes)
        width, num_classes = self.layers.channels, len(self.classes)
        self.shared = nn.Conv2d(in_channels, width, 3, padding=1)
        self.heatmap = HeatmapConvs(num_classes, self.layers)
        self.class_embedding = nn.Conv1d(num_classes, width, 1)
        self.transformer = QueryTransformer(self.layers)
        self.branches = query_branches(num_classes, self.layers)
        small = torch.tensor([name in self.rule.small_classes for name in self.classes])
        self.register_buffer("every_cell", small, persistent=False)

    def forward(self, bev: Tensor) -> TransFusionOutput:
        """Predict from a map (B, in_channels, H, W).

        Raises:
            ValueError: another width, or a map that is not that of the grid.
        """
        check_tensor("TransFusionHead", "bev", bev, ("B", self.in_channels, "H", "W"), FLOATS)
        self.grid.check_map("TransFusionHead", bev)
        if self.layers.transposed:
            bev = bev.transpose(2, 3)
        shared = self.shared(bev)
        heatmap = self.heatmap(shared)
        queries = pick_queries(heatmap, self.every_cell, self.rule.count)
        at_cells = queries.cells[:, None].expand(-1, shared.shape[1], -1)
        one_hot = F.one_hot(queries.labels, len(self.classes)).transpose(1, 2).to(shared.dtype)
        features = shared.flatten(2).gather(2, at_cells) + self.class_embedding(one_hot)
        places = self._places(bev)
        features = self.transformer(features.transpose(1, 2), shared, queries.cells, places)
        found = {name: branch(features.transpose(1, 2)) for name, branch in self.branches.items()}
        # Cells need more digits than half precision has.
        found["center"] = found["center"].to(places.dtype) + places[queries.cells].transpose(1, 2)
        if self.layers.transposed:
            heatmap = heatmap.transpose(2, 3)
        return TransFusionOutput(heatmap, queries.labels, queries.scores, **found)

    def _places(self, bev: Tensor) -> Tensor:
        """Return x, y of the middle of every cell, row by row of the network's map, (N, 2)."""
        rows, columns = (
            torch.arange(size, device=bev.device, dtype=torch.float32) + 0.5
            for size in bev.shape[2:]
        )
        places = torch.cartesian_prod(rows, columns)
        return places if self.layers.transposed else places.flip(1)

    def frozen_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what the published trainings never updated, by accident of their optimiser.

        These are the projections of both attentions (open-mmlab/OpenPCDet, issue 960).  The
        optimiser setting `official_frozen` leaves them out; by default everything is trained.
        """
        yield from self.transformer.self_attention.qkv.parameters()
        yield from self.transformer.cross_attention.qkv.parameters()

    def loss(self, output: TransFusionOutput, targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Return the losses "loss_heatmap", "loss_class", "loss_box"(, "loss_iou", "loss_diou"),
        scalars.

        Raises:
            ValueError: not one Targets per frame.
        """
        losses = self.loss_maker.compute(output, self.assign(output, targets), self.code)
        return {f"loss_{name}": value for name, value in losses.items()}

    def assign(self, output: TransFusionOutput, targets: Sequence[Targets]) -> QueryTargets:
        """Return the targets of the queries of an output."""
        if len(targets) != output.batch_size:
            raise ValueError(
                f"TransFusionHead: targets must have one entry per frame ({output.batch_size}), "
                f"got {len(targets)}"
            )
        return self.target_maker.assign(output, targets, self.code)

    def decode(self, output: TransFusionOutput) -> list[Detections]:
        """Return the detections of every frame by descending score."""
        return self.decoder.decode(output, self.classes, self.code)
