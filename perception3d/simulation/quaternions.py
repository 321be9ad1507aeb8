"""Rotation matrices to quaternions (w, x, y, z) as nuScenes stores them."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]


def quaternions_of(rotation: Floats) -> Floats:
    """Return unit quaternions (..., 4) in the order w, x, y, z, w >= 0, of matrices (..., 3, 3)."""
    flat = Rotation.from_matrix(rotation.reshape(-1, 3, 3)).as_quat(canonical=True)
    return np.asarray(flat[:, [3, 0, 1, 2]].reshape(*rotation.shape[:-2], 4))


def yaw_quaternions(yaw: Floats) -> Floats:
    """Return unit quaternions (..., 4) in the order w, x, y, z of turns about z, rad."""
    half = np.asarray(yaw) / 2
    zero = np.zeros_like(half)
    return np.stack([np.cos(half), zero, zero, np.sin(half)], axis=-1)
