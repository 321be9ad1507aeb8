"""Points of a voxel to one feature row."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perception3d.checks import FLOATS, check_tensor
from perception3d.layers.linear import RowLinear, linear_norm_relu
from perception3d.layers.normalization import RowBatchNorm
from perception3d.models.voxelizer import cell_centers
from perception3d.ops.segment_reduce import segment_reduce
from perception3d.structures import PointVoxels, SparseVoxels

# As in OpenPCDet, pcdet/models/backbones_3d/vfe/dynamic_pillar_vfe.py
_NORM_EPS = 1e-3
_NORM_MOMENTUM = 0.01


class PointLayer(nn.Module):
    """Linear - BatchNorm - ReLU per point.

    Args:
        in_channels: columns of a point.
        out_channels: width of the result.
        use_norm: False: a bias in place of BatchNorm.
    """

    def __init__(self, in_channels: int, out_channels: int, *, use_norm: bool = True) -> None:
        super().__init__()
        self.linear = RowLinear(in_channels, out_channels, bias=not use_norm)
        self.norm = (
            RowBatchNorm(out_channels, eps=_NORM_EPS, momentum=_NORM_MOMENTUM)
            if use_norm
            else nn.Identity()
        )

    def forward(self, points: Tensor) -> Tensor:
        """Map (K, in_channels) to (K, out_channels)."""
        if isinstance(self.norm, nn.Identity):
            return torch.relu(self.linear(points))
        return linear_norm_relu(self.linear, self.norm, points)


class VoxelEncoder(nn.Module):
    """Dynamic voxel feature encoder: a small PointNet over all points of each voxel.

    Columns of a point: [x y z and the further ones | xyz - mean of the voxel's points | xyz -
    voxel centre | optionally the distance from the origin].  Every layer but the last has half
    its width per point and appends the maximum over the point's voxel; the last one gives the
    maximum alone (OpenPCDet's DynamicVoxelVFE).

    Args:
        voxel_size: size of a voxel (x, y, z), m.
        point_cloud_range: (x, y, z, x, y, z) low and high corner, m.
        in_channels: columns F >= 3 of a point, x, y, z first.
        channels: width of each layer; even but for the last.
        use_absolute_xyz: False leaves x, y, z themselves out.
        with_distance: append the Euclidean norm of x, y, z.
        use_norm: False: biases in place of BatchNorm.

    Raises:
        ValueError: in_channels below 3, no layer, or an odd width before the last.
    """

    def __init__(
        self,
        voxel_size: tuple[float, float, float],
        point_cloud_range: tuple[float, float, float, float, float, float],
        in_channels: int,
        channels: Sequence[int],
        *,
        use_absolute_xyz: bool = True,
        with_distance: bool = False,
        use_norm: bool = True,
    ) -> None:
        super().__init__()
        if in_channels < 3:
            raise ValueError(f"VoxelEncoder: in_channels must be >= 3 (x, y, z), got {in_channels}")
        if not channels or min(channels) < 1 or any(width % 2 for width in channels[:-1]):
            raise ValueError(
                "VoxelEncoder: channels must be one or more positive widths, even but for the "
                f"last, got {tuple(channels)}"
            )
        self.voxel_size = tuple(float(size) for size in voxel_size)
        self.point_cloud_range = tuple(float(bound) for bound in point_cloud_range)
        self.in_channels = in_channels
        self.use_absolute_xyz = use_absolute_xyz
        self.with_distance = with_distance
        widths = [width // 2 for width in channels[:-1]] + [channels[-1]]
        inputs = [in_channels + (6 if use_absolute_xyz else 3) + int(with_distance), *channels[:-1]]
        self.out_channels = channels[-1]
        self.layers = nn.ModuleList(
            PointLayer(start, width, use_norm=use_norm)
            for start, width in zip(inputs, widths, strict=True)
        )

    def forward(self, points: Tensor, voxels: PointVoxels) -> SparseVoxels:
        """Encode the points.

        Args:
            points: (P, F) float, x, y, z in m first.
            voxels: voxel of each point.

        Returns:
            N voxels with `channels[-1]` channels, rows as `voxels.coords`.
        """
        shape = (voxels.voxel_of_point.shape[0], self.in_channels)
        check_tensor("VoxelEncoder", "points", points, shape, FLOATS)
        # Sorted by voxel, so that every reduction reads its rows in one sweep.
        voxel = voxels.voxel_of_point[voxels.order]
        rows = torch.arange(voxel.shape[0], device=voxel.device)
        features = self._columns(points[voxels.order], voxel, rows, voxels)
        features = features.to(next(self.parameters()).dtype)
        maximum = features
        for layer in self.layers:
            if layer is not self.layers[0]:
                features = torch.cat([features, maximum[voxel]], dim=1)
            features = layer(features)
            maximum = segment_reduce(features, rows, voxels.offsets, "max")
        return SparseVoxels(maximum, voxels.coords, voxels.spatial_shape, voxels.batch_size)

    def _columns(self, points: Tensor, voxel: Tensor, rows: Tensor, voxels: PointVoxels) -> Tensor:
        """Return the input columns (K, ...) of points that are sorted by voxel."""
        xyz = points[:, :3]
        mean = segment_reduce(xyz, rows, voxels.offsets, "mean")
        center = cell_centers(voxels.coords, self.voxel_size, self.point_cloud_range)
        own = points if self.use_absolute_xyz else points[:, 3:]
        columns = [own, xyz - mean[voxel], xyz - center[voxel]]
        if self.with_distance:
            columns.append(xyz.norm(dim=1, keepdim=True))
        return torch.cat(columns, dim=1)


class PillarEncoder(VoxelEncoder):
    """Dynamic pillar feature encoder: a VoxelEncoder on a grid of one cell in z.

    Args: as VoxelEncoder.  `Voxelizer(check_z=False)` gives it points of any height.
    """

    def forward(self, points: Tensor, voxels: PointVoxels) -> SparseVoxels:
        """Encode the points; see VoxelEncoder.

        Raises:
            ValueError: the grid has more than one cell in z.
        """
        if voxels.spatial_shape[0] != 1:
            raise ValueError(
                "PillarEncoder: the grid must have one cell in z, "
                f"got spatial_shape {voxels.spatial_shape} (z, y, x)"
            )
        return super().forward(points, voxels)
