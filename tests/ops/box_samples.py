"""Boxes for the tests of the box operators: random ones, awkward ones, and shapely's view."""

import math

import pytest
import torch
from hypothesis import strategies as st


def random_boxes(count, seed, *, extent=12.0, dtype=torch.float64, columns=7):
    """Boxes of 0.1 to 6 m, close enough for many overlaps."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(count, columns, generator=generator, dtype=torch.float64)
    unit[:, 0:2] = (unit[:, 0:2] - 0.5) * extent
    unit[:, 2] = unit[:, 2] * 3 - 1.5
    unit[:, 3:6] = 0.1 + 5.9 * unit[:, 3:6] ** 2
    unit[:, 6] = (unit[:, 6] - 0.5) * 4 * math.pi
    return unit.to(dtype)


def awkward_boxes():
    """Pairs on which inexact algorithms stumble: (N, 7) and (N, 7), float64."""
    half_turn = math.pi
    pairs = [
        # identical, turned by quarter turns, by almost nothing
        ([0, 0, 0, 4, 2, 1, 0.3], [0, 0, 0, 4, 2, 1, 0.3]),
        ([3, 9, 0, 4, 2, 1, 0.3], [3, 9, 0, 4, 2, 1, 0.3 + half_turn]),
        ([3, 9, 0, 2, 2, 1, 0.3], [3, 9, 0, 2, 2, 1, 0.3 + half_turn / 2]),
        ([0, 0, 0, 4, 2, 1, 0.3], [0, 0, 0, 4, 2, 1, 0.3 + 1e-9]),
        ([0, 0, 0, 4, 2, 1, 0.3], [1e-9, 0, 0, 4, 2, 1, 0.3]),
        # one inside the other, with shared edges, with a shared corner
        ([0, 0, 0, 4, 2, 1, 0.7], [0, 0, 0, 2, 1, 1, 1.9]),
        ([0, 0, 0, 4, 2, 1, 0], [1, 0, 0, 2, 2, 1, 0]),
        ([0, 0, 0, 4, 4, 1, 0], [1, 1, 0, 2, 2, 1, 0]),
        # touching along an edge, at a corner, at a corner of a turned box; a hair apart
        ([0, 0, 0, 2, 2, 1, 0], [2, 0, 0, 2, 2, 1, 0]),
        ([0, 0, 0, 2, 2, 1, 0], [2, 2, 0, 2, 2, 1, 0]),
        ([0, 0, 0, 2, 2, 1, 0], [1 + math.sqrt(2), 0, 0, 2, 2, 1, half_turn / 4]),
        ([0, 0, 0, 2, 2, 1, 0], [2 + 1e-6, 0, 0, 2, 2, 1, 0]),
        ([0, 0, 0, 2, 2, 1, 0], [2.005, 0, 0, 2, 2, 1, 0]),
        # thin, tiny, and huge against small
        ([0, 0, 0, 10, 0.001, 1, 0.4], [0, 0, 0, 10, 0.001, 1, 0.4 + half_turn / 2]),
        ([0, 0, 0, 10, 0.02, 1, 0.4], [0, 0.01, 0, 10, 0.02, 1, 0.4]),
        ([5, 5, 0, 1e-3, 1e-3, 1, 0.1], [5, 5.0003, 0, 1e-3, 1e-3, 1, 0.5]),
        ([5, 5, 0, 1e-6, 1e-6, 1, 0.1], [5, 5, 0, 1e-6, 1e-6, 1, 0.5]),
        ([0, 0, 0, 1e4, 1e4, 1, 0.1], [30, -20, 0, 0.5, 0.2, 1, 2.0]),
        ([0, 0, 0, 1e4, 0.1, 1, 0.1], [0, 0, 0, 0.1, 1e4, 1, 0.1]),
        # far from the origin
        ([1e6, -1e6, 0, 4, 2, 1, 0.3], [1e6 + 1, -1e6, 0, 4, 2, 1, 0.9]),
    ]
    a, b = zip(*pairs, strict=True)
    return torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)


def footprint(box, origin=(0.0, 0.0)):
    """The footprint of one box, a list of numbers, as a shapely polygon around an origin."""
    polygon = pytest.importorskip("shapely.geometry").Polygon
    x, y, _, length, width, _, yaw = (float(number) for number in box[:7])
    cos, sin = math.cos(yaw), math.sin(yaw)
    corners = [(length, width), (-length, width), (-length, -width), (length, -width)]
    return polygon(
        [
            (
                x - origin[0] + (cos * u - sin * v) / 2,
                y - origin[1] + (sin * u + cos * v) / 2,
            )
            for u, v in corners
        ]
    )


def shapely_measures(box_a, box_b):
    """Overlap and the four kinds of IoU of one pair, by polygon clipping."""
    a, b = (footprint(box, (float(box_a[0]), float(box_a[1]))) for box in (box_a, box_b))
    overlap = a.intersection(b).area
    hull = a.union(b).convex_hull.area
    bottoms, tops = zip(
        *((float(box[2] - box[5] / 2), float(box[2] + box[5] / 2)) for box in (box_a, box_b)),
        strict=True,
    )
    volume = overlap * max(min(tops) - max(bottoms), 0.0)
    union = a.area + b.area - overlap
    union_3d = a.area * float(box_a[5]) + b.area * float(box_b[5]) - volume
    hull_3d = hull * (max(tops) - min(bottoms))
    return {
        "overlap": overlap,
        "bev": overlap / union,
        "3d": volume / union_3d,
        "giou_bev": overlap / union - (hull - union) / hull,
        "giou_3d": volume / union_3d - (hull_3d - union_3d) / hull_3d,
    }


def box_strategy():
    """One box as a list of numbers: mostly ordinary, sometimes thin, on a coarse lattice or not."""
    place = st.one_of(st.floats(-6, 6), st.integers(-4, 4).map(float))
    size = st.one_of(st.floats(0.01, 8), st.sampled_from([0.001, 0.5, 1.0, 2.0, 4.0]))
    yaw = st.one_of(
        st.floats(-7, 7), st.integers(-4, 4).map(lambda quarters: quarters * math.pi / 2)
    )
    return st.tuples(place, place, st.floats(-1, 1), size, size, size, yaw).map(list)
