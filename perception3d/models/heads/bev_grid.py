"""Cells of a BEV map and metres."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class BevGrid:
    """Where the cells of a BEV map lie.

    Attributes:
        voxel_size: size of a voxel (x, y, ...), m.
        point_cloud_range: low and high corner (x, y, z, x, y, z), m.
        stride: voxels per cell of the map, along x and y.

    Raises:
        ValueError: sizes, range or stride that make no map.
    """

    voxel_size: Sequence[float]
    point_cloud_range: Sequence[float]
    stride: int = 1

    def __post_init__(self) -> None:
        if len(self.voxel_size) < 2 or len(self.point_cloud_range) != 6:
            raise ValueError(
                "BevGrid: voxel_size must be (x, y, ...) and point_cloud_range (x, y, z, x, y, z), "
                f"got {self.voxel_size} and {self.point_cloud_range}"
            )
        if min(self.voxel_size[:2]) <= 0 or self.stride < 1 or min(self.size) < 1:
            raise ValueError(
                "BevGrid: voxel_size must be positive, stride >= 1 and point_cloud_range low < "
                f"high, got {self.voxel_size}, {self.stride} and {self.point_cloud_range}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Cells of the map (W, H), along x and y."""
        low, high = self.point_cloud_range[:3], self.point_cloud_range[3:]
        voxels = [
            round((high[axis] - low[axis]) / size) for axis, size in enumerate(self.voxel_size[:2])
        ]
        return -(-voxels[0] // self.stride), -(-voxels[1] // self.stride)

    def check_map(self, owner: str, bev: Tensor) -> None:
        """Raise ValueError unless (B, C, H, W) has the size of this map.

        A wrong stride would otherwise go unnoticed and put every box in a wrong place.
        """
        width, height = self.size
        if tuple(bev.shape[2:]) != (height, width):
            raise ValueError(
                f"{owner}: range, voxel size and stride {self.stride} make a map of (H, W) = "
                f"{(height, width)}, got {tuple(bev.shape[2:])}; is the stride that of the neck?"
            )

    def to_cells(self, points: Tensor) -> Tensor:
        """Turn (..., 2) x, y in m into cells, real numbers; cell i spans i .. i + 1."""
        # Two divisions by tensors: the rounding of OpenPCDet, and the same on every device
        # (CUDA multiplies by the reciprocal of a scalar).
        return (points - self._lower(points)) / self._voxel(points) / self._stride(points)

    def to_metres(self, cells: Tensor) -> Tensor:
        """Turn (..., 2) x, y in cells, real numbers, into m."""
        return cells * self._stride(cells) * self._voxel(cells) + self._lower(cells)

    def sizes_in_cells(self, sizes: Tensor) -> Tensor:
        """Turn (..., 2) lengths along x, y in m into cells."""
        return sizes / self._voxel(sizes) / self._stride(sizes)

    def _lower(self, like: Tensor) -> Tensor:
        return like.new_tensor(list(self.point_cloud_range[:2]))

    def _voxel(self, like: Tensor) -> Tensor:
        return like.new_tensor(list(self.voxel_size[:2]))

    def _stride(self, like: Tensor) -> Tensor:
        return like.new_tensor(float(self.stride))
