"""Rigid motions: quaternions (w, x, y, z) as nuScenes stores them, and 4x4 matrices."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def rotations_from_quaternions(quaternions: ArrayLike) -> Floats:
    """Return rotation matrices (N, 3, 3) of quaternions (N, 4) in the order w, x, y, z.

    Quaternions are normalised first; a zero quaternion gives NaN.
    """
    unit = np.asarray(quaternions, dtype=np.float64).reshape(-1, 4)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    w, x, y, z = unit.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def pose_matrices(translations: ArrayLike, quaternions: ArrayLike) -> Floats:
    """Return (N, 4, 4) matrices that turn by the quaternions (N, 4), then shift by (N, 3) m."""
    rotations = rotations_from_quaternions(quaternions)
    poses = np.tile(np.eye(4), (len(rotations), 1, 1))
    poses[:, :3, :3] = rotations
    poses[:, :3, 3] = np.asarray(translations, dtype=np.float64).reshape(-1, 3)
    return poses


def inverse_pose(poses: NDArray[Any]) -> Floats:
    """Return the inverse of rigid motions (..., 4, 4)."""
    inverse = np.zeros(poses.shape, dtype=np.float64)
    turned = np.swapaxes(poses[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = turned
    inverse[..., :3, 3] = -np.einsum("...ij,...j->...i", turned, poses[..., :3, 3])
    inverse[..., 3, 3] = 1.0
    return inverse
