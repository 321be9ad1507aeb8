"""Points of a batch to voxels."""

import torch
from torch import Tensor, nn

from perception3d.ops.voxel_grid import voxel_grid_size
from perception3d.ops.voxelize import voxelize
from perception3d.structures import Batch, PointVoxels


class Voxelizer(nn.Module):
    """Assign every point of a batch to a voxel; no point limit, points outside are dropped.

    The cell of a point is floor((p - low) / size) in float32 with a true division: multiplying
    by 1 / size moves points that lie on voxel faces.

    Args:
        voxel_size: size of a voxel (x, y, z), m.
        point_cloud_range: (x, y, z, x, y, z) low and high corner, m; the grid has
            round((high - low) / size) cells per axis.
        check_z: False takes points at any height into z cell 0, as the original pillar encoder.

    Raises:
        ValueError: a size or a range that makes no grid.
    """

    def __init__(
        self,
        voxel_size: tuple[float, float, float],
        point_cloud_range: tuple[float, float, float, float, float, float],
        check_z: bool = True,
    ) -> None:
        super().__init__()
        self.voxel_size = tuple(float(size) for size in voxel_size)
        self.point_cloud_range = tuple(float(bound) for bound in point_cloud_range)
        self.check_z = check_z
        self.grid_size = voxel_grid_size(self.voxel_size, self.point_cloud_range, owner="Voxelizer")
        if not check_z and self.grid_size[2] != 1:
            raise ValueError(
                f"Voxelizer: check_z=False needs a grid of one cell in z, got {self.grid_size[2]}"
            )

    def forward(self, batch: Batch) -> PointVoxels:
        """Return the voxels of a batch and the voxel of each point."""
        return self.assign(batch.points, batch.frame_of_point, batch.batch_size)

    def assign(self, points: Tensor, frame_of_point: Tensor, batch_size: int) -> PointVoxels:
        """Return the voxels of points (P, >= 3) float32 whose frames are (P,) int32."""
        voxel_of_point, coords, order, offsets = voxelize(
            points,
            frame_of_point,
            batch_size,
            self.voxel_size,
            self.point_cloud_range,
            check_z=self.check_z,
        )
        width, height, depth = self.grid_size
        shape = (depth, height, width)
        return PointVoxels(voxel_of_point, coords, order, offsets, shape, batch_size)

    def extra_repr(self) -> str:
        """Describe the grid."""
        return f"voxel_size={self.voxel_size}, grid_size={self.grid_size}, check_z={self.check_z}"


def cell_centers(
    coords: Tensor, voxel_size: tuple[float, ...], point_cloud_range: tuple[float, ...]
) -> Tensor:
    """Return the centres (N, 3) xyz, m, of voxels with rows (b, z, y, x), float32.

    index * size + (size / 2 + low), the bracket in double: the rounding of the original encoders.
    """
    cells = coords[:, [3, 2, 1]].float()
    size = torch.tensor(voxel_size, dtype=torch.float32, device=coords.device)
    offset = [length / 2 + low for length, low in zip(voxel_size, point_cloud_range, strict=False)]
    return cells * size + torch.tensor(offset, dtype=torch.float32, device=coords.device)
