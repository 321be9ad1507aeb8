"""Overlap and suppression of turned boxes by shapely's polygon clipping."""

import numpy as np
import shapely
import torch
from torch import Tensor

from perception3d.benchmark.peers.boxes import corners_of


def shapely_iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """BEV IoU matrix by shapely's vectorised clipping, near pairs from its tree."""
    polygons_a, polygons_b = shapely_footprints(a), shapely_footprints(b)
    columns, rows = shapely.STRtree(polygons_a).query(polygons_b)
    result = np.zeros((len(a), len(b)), np.float32)
    result[rows, columns] = _shapely_iou(polygons_a[rows], polygons_b[columns])
    return torch.from_numpy(result)


def shapely_loop_iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """BEV IoU matrix by one shapely call per pair whose bounds meet: the way of many scripts."""
    polygons_a, polygons_b = shapely_footprints(a), shapely_footprints(b)
    result = np.zeros((len(a), len(b)), np.float32)
    for row, one in enumerate(polygons_a):
        for column, two in enumerate(polygons_b):
            if one.intersects(two):
                overlap = one.intersection(two).area
                result[row, column] = overlap / (one.area + two.area - overlap)
    return torch.from_numpy(result)


def shapely_footprints(boxes: Tensor) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """Return (K,) shapely polygons."""
    polygons: np.ndarray[tuple[int], np.dtype[np.object_]] = shapely.polygons(
        corners_of(boxes.double()).numpy()
    )
    return polygons


def _shapely_iou(
    a: np.ndarray[tuple[int], np.dtype[np.object_]], b: np.ndarray[tuple[int], np.dtype[np.object_]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    overlap = shapely.area(shapely.intersection(a, b))
    iou: np.ndarray[tuple[int], np.dtype[np.float64]] = overlap / (
        shapely.area(a) + shapely.area(b) - overlap
    )
    return iou


def shapely_lazy_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Each kept box against what is left near it, by shapely's vectorised clipping."""
    order = torch.argsort(scores, descending=True, stable=True)
    polygons = shapely_footprints(boxes[order])
    tree = shapely.STRtree(polygons)
    free = np.ones(len(polygons), bool)
    kept = []
    for row in range(len(polygons)):
        if free[row]:
            kept.append(row)
            near = tree.query(polygons[row])
            near = near[free[near] & (near > row)]
            free[near[_shapely_iou(polygons[near], polygons[row]) > threshold]] = False
    return order[torch.tensor(kept)]
