"""Voxels of a frame batch, and the link from points to voxels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from perception3d.checks import FLOATS, check_same_device, check_tensor
from perception3d.ops.curve_order import curve_order
from perception3d.ops.set_partition import set_partition
from perception3d.ops.subm_index import subm_index
from perception3d.ops.window_partition import window_partition
from perception3d.structures.curves import CurveOrder, CurveSpec
from perception3d.structures.windows import SetPartition, Windows, WindowSpec

Value = TypeVar("Value")


class IndexCache:
    """Index tables that depend on coordinates alone, each computed once."""

    def __init__(self) -> None:
        self._tables: dict[object, object] = {}

    def get(self, key: object, compute: Callable[[], Value]) -> Value:
        """Return the table stored under `key`, computing it on first use."""
        if key not in self._tables:
            self._tables[key] = compute()
        return self._tables[key]  # type: ignore[return-value]  # one key, one type

    def tables(self) -> tuple[object, ...]:
        """Return all tables computed so far."""
        return tuple(self._tables.values())


@dataclass(frozen=True)
class SparseVoxels:
    """Occupied voxels of a batch of frames: features, cells, and cached index tables.

    Attributes:
        features: (N, C) float.
        coords: (N, 4) int32 rows (b, z, y, x), unique.
        spatial_shape: grid size in cells (D, H, W), order z, y, x.
        batch_size: number of frames, empty ones included.
        cache: tables of these coordinates; `with_features` hands it on.

    Raises:
        TypeError, ValueError: shape or dtype. Contents are not read: no device sync.
    """

    features: Tensor
    coords: Tensor
    spatial_shape: tuple[int, int, int]
    batch_size: int
    cache: IndexCache = field(default_factory=IndexCache, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_tensor("SparseVoxels", "features", self.features, ("N", "C"), FLOATS)
        check_tensor("SparseVoxels", "coords", self.coords, ("N", 4), (torch.int32,))
        check_same_device("SparseVoxels", features=self.features, coords=self.coords)
        if self.features.shape[0] != self.coords.shape[0]:
            raise ValueError(
                f"SparseVoxels: features and coords must have equally many rows, "
                f"got {self.features.shape[0]} and {self.coords.shape[0]}"
            )
        if len(self.spatial_shape) != 3 or min(self.spatial_shape) < 1:
            raise ValueError(
                f"SparseVoxels: spatial_shape must be three cell counts >= 1 (z, y, x), "
                f"got {self.spatial_shape}"
            )
        if self.batch_size < 1:
            raise ValueError(f"SparseVoxels: batch_size must be >= 1, got {self.batch_size}")

    @property
    def num_voxels(self) -> int:
        """Number of rows N."""
        return self.coords.shape[0]

    def with_features(self, features: Tensor) -> "SparseVoxels":
        """Return the same voxels with other features (N, C'); the index tables stay."""
        return SparseVoxels(features, self.coords, self.spatial_shape, self.batch_size, self.cache)

    def take(self, rows: Tensor) -> "SparseVoxels":
        """Return the voxels of the given rows (M,), with an empty index cache."""
        return SparseVoxels(
            self.features[rows], self.coords[rows], self.spatial_shape, self.batch_size
        )

    def windows(self, spec: WindowSpec) -> Windows:
        """Return the windows of these voxels, computed once per spec."""

        def compute() -> Windows:
            tables = window_partition(
                self.coords,
                self.batch_size,
                self.spatial_shape,
                spec.size,
                spec.shift,
                axis_order=spec.axis_order,
            )
            return Windows(*tables, spec=spec)

        return self.cache.get(("windows", spec), compute)

    def sets(self, spec: WindowSpec, set_size: int) -> SetPartition:
        """Return DSVT's sets of at most `set_size` voxels, computed once per (spec, set_size)."""

        def compute() -> SetPartition:
            windows = self.windows(spec)
            tables = set_partition(windows.cell_in_window, windows.order, windows.offsets, set_size)
            return SetPartition(*tables)

        return self.cache.get(("sets", spec, set_size), compute)

    def neighbours(self, kernel: tuple[int, int, int]) -> Tensor:
        """Return the (N, K) int32 rows under a kernel (z, y, x), -1 for none, computed once."""
        return self.cache.get(
            ("neighbours", kernel),
            lambda: subm_index(self.coords, self.batch_size, self.spatial_shape, kernel),
        )

    def curve(self, spec: CurveSpec) -> CurveOrder:
        """Return the voxels of every frame in the order of a curve, computed once per spec."""

        def compute() -> CurveOrder:
            order, _, offsets = curve_order(
                self.coords, self.batch_size, spec.rank, shift=spec.shift, curve=spec.kind
            )
            return CurveOrder(order, offsets, spec)

        return self.cache.get(("curve", spec), compute)


@dataclass(frozen=True)
class PointVoxels:
    """Which voxel each point of a batch falls into.

    Attributes:
        voxel_of_point: (P,) int64, row of `coords`, -1 for points outside the range.
        coords: (N, 4) int32 rows (b, z, y, x), ascending by (b, x, y, z).
        order: (K,) int64, the K points inside the range, sorted by voxel, stable.
        offsets: (N + 1,) int64, voxel n holds the points order[offsets[n]:offsets[n + 1]].
        spatial_shape: grid size in cells (D, H, W), order z, y, x.
        batch_size: number of frames, empty ones included.
    """

    voxel_of_point: Tensor
    coords: Tensor
    order: Tensor
    offsets: Tensor
    spatial_shape: tuple[int, int, int]
    batch_size: int

    @property
    def num_voxels(self) -> int:
        """Number of voxels N."""
        return self.coords.shape[0]
