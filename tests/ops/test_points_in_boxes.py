"""Membership against hand-computed cases, the reference, and what must not change it."""

import math

import pytest
import torch
from box_samples import box_strategy, random_boxes
from hypothesis import given, settings
from hypothesis import strategies as st

from perception3d.ops import box_of_point, points_in_boxes
from perception3d.ops.reference import points_in_boxes as reference

DTYPES = (torch.float32, torch.float64)


def random_points(count, seed, *, extent=16.0, dtype=torch.float64, columns=3):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, columns, generator=generator, dtype=torch.float64) - 0.5
    points[:, :3] *= torch.tensor([extent, extent, 4.0], dtype=torch.float64)
    return points.to(dtype)


@pytest.mark.parametrize("module", [None, reference])
def test_by_hand(module):
    find = module.points_in_boxes if module else points_in_boxes
    first = module.box_of_point if module else box_of_point
    boxes = torch.tensor(
        [[0, 0, 0, 4, 2, 2, 0], [0, 0, 0, 4, 2, 2, math.pi / 2], [50, 0, 0, 1, 1, 1, 0]],
        dtype=torch.float64,
    )
    points = torch.tensor(
        [
            [0, 0, 0],  # in both of the cross
            [2, 1, 1],  # a corner of box 0
            [2.0001, 0, 0],
            [0, 1.9, -1],  # on the floor of box 1
            [0, 1.9, -1.0001],
            [9, 9, 9],
            [0.9, 0.9, 0.9],
        ],
        dtype=torch.float64,
    )
    box, point = find(points, boxes)
    assert box.tolist() == [0, 0, 0, 1, 1, 1]
    assert point.tolist() == [0, 1, 6, 0, 3, 6]
    assert first(points, boxes).tolist() == [0, 0, -1, 1, -1, -1, 0]
    # a margin widens x and y, not z, and opens the faces
    box, point = find(points, boxes, margin=0.001)
    assert point[box == 0].tolist() == [0, 1, 2, 6]
    assert point[box == 1].tolist() == [0, 3, 6]


def test_faces_belong_to_the_box_only_without_a_margin():
    box = torch.tensor([[0, 0, 0, 2, 2, 2, 0]], dtype=torch.float64)
    edge = torch.tensor([[1.5, 0, 0], [1, 0, 1], [0, -1.5, -1]], dtype=torch.float64)
    for find in (points_in_boxes, reference.points_in_boxes):
        assert find(edge, box)[1].tolist() == [1]
        assert find(edge, box, margin=0.5)[1].tolist() == [1]
        assert find(edge, box, margin=0.51)[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("margin", [0.0, 1e-5, 0.5])
@pytest.mark.parametrize(("count", "num_boxes"), [(1, 1), (500, 1), (3000, 40), (20_000, 7)])
def test_matches_the_reference(dtype, margin, count, num_boxes):
    points = random_points(count, count, dtype=dtype, columns=5)
    boxes = random_boxes(num_boxes, num_boxes, dtype=dtype, columns=9)
    got = points_in_boxes(points, boxes, margin=margin)
    expected = reference.points_in_boxes(points, boxes, margin=margin)
    for result, wanted in zip(got, expected, strict=True):
        assert torch.equal(result, wanted)
    assert torch.equal(
        box_of_point(points, boxes, margin=margin),
        reference.box_of_point(points, boxes, margin=margin),
    )


@pytest.mark.parametrize("extent", [1e-3, 1.0, 1e4, 1e7])
def test_matches_the_reference_at_every_scale(extent):
    """The cells of the search adapt to the scene."""
    points = random_points(2000, 1, extent=extent)
    points[:, 2] = 0
    boxes = random_boxes(60, 2, extent=extent)
    boxes[:, 2] = 0
    boxes[:, 3:5] *= extent / 50
    boxes[0, 0:2], boxes[0, 3:5] = 0, 2 * extent  # one that covers all cells
    boxes[1, 3:5] = 0  # one without extent
    got = points_in_boxes(points, boxes)
    for result, wanted in zip(got, reference.points_in_boxes(points, boxes), strict=True):
        assert torch.equal(result, wanted)
    assert len(got[0]) > 2000


@given(box_strategy(), st.lists(st.tuples(*[st.floats(-1.2, 1.2)] * 3), max_size=20))
@settings(deadline=None, max_examples=150)
def test_membership_is_that_of_the_frame_of_the_box(box, local):
    """Points placed in the frame of the box are found as they were placed."""
    x, y, z, length, width, height, yaw = box
    cos, sin = math.cos(yaw), math.sin(yaw)
    points, inside = [], []
    for along, across, up in local:
        if any(abs(abs(share) - 1) < 1e-6 for share in (along, across, up)):
            continue  # too near a face for rounding of the placement
        u, v, w = along * length / 2, across * width / 2, up * height / 2
        points.append([x + cos * u - sin * v, y + sin * u + cos * v, z + w])
        inside.append(max(abs(along), abs(across), abs(up)) < 1)
    points = torch.tensor(points, dtype=torch.float64).reshape(-1, 3)
    found = box_of_point(points, torch.tensor([box], dtype=torch.float64)) == 0
    assert found.tolist() == inside


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_order_of_points_and_boxes_commutes(seed):
    generator = torch.Generator().manual_seed(seed)
    points, boxes = random_points(200, seed), random_boxes(12, seed)
    new_points = torch.randperm(200, generator=generator)
    new_boxes = torch.randperm(12, generator=generator)
    box, point = points_in_boxes(points, boxes)
    moved_box, moved_point = points_in_boxes(points[new_points], boxes[new_boxes])
    pairs = set(zip(box.tolist(), point.tolist(), strict=True))
    back = zip(new_boxes[moved_box].tolist(), new_points[moved_point].tolist(), strict=True)
    assert set(back) == pairs


@pytest.mark.parametrize(("count", "num_boxes"), [(0, 0), (0, 3), (5, 0)])
def test_empty(count, num_boxes):
    points, boxes = random_points(count, 0), random_boxes(num_boxes, 0)
    box, point = points_in_boxes(points, boxes)
    assert box.shape == point.shape == (0,)
    assert box.dtype == point.dtype == torch.int64
    assert box_of_point(points, boxes).tolist() == [-1] * count
    assert reference.box_of_point(points, boxes).tolist() == [-1] * count


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_in_no_pair(bad):
    points, boxes = torch.zeros(8, 3), torch.tensor([[0.0, 0, 0, 4, 2, 2, 0]]).repeat(8, 1)
    for column in range(3):
        points[column, column] = bad
    for column in range(7):
        boxes[column, column] = bad
    for find in (points_in_boxes, reference.points_in_boxes):
        box, point = find(points, boxes, margin=0.1)
        assert box.tolist() == [7] * 5
        assert point.tolist() == [3, 4, 5, 6, 7]
    assert box_of_point(points, boxes).tolist() == [-1, -1, -1, 7, 7, 7, 7, 7]


def test_sizes_below_zero_hold_nothing():
    boxes = torch.tensor([[0.0, 0, 0, -1, 2, 2, 0], [0, 0, 0, 1, 2, -2, 0]])
    assert points_in_boxes(torch.zeros(1, 3), boxes)[0].shape == (0,)
    assert reference.points_in_boxes(torch.zeros(1, 3), boxes)[0].shape == (0,)


def test_strides_threads_and_gradients_do_not_matter():
    points, boxes = random_points(60_000, 9, columns=5), random_boxes(50, 9)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = points_in_boxes(points, boxes)
        torch.set_num_threads(3)
        got = points_in_boxes(
            points.T.contiguous().T.requires_grad_(), boxes.T.contiguous().T.requires_grad_()
        )
    finally:
        torch.set_num_threads(threads)
    for result, wanted in zip(got, expected, strict=True):
        assert torch.equal(result, wanted)
        assert not result.requires_grad


def test_opcheck():
    points, boxes = random_points(50, 0), random_boxes(5, 0)
    points_in_boxes(points, boxes)
    operator = torch.ops.perception3d.points_in_boxes.default
    torch.library.opcheck(operator, (points, boxes, 0.0))


def test_compiles_whole():
    def run(points, boxes):
        box, point = points_in_boxes(points, boxes)
        return points[point].sum(0) + boxes[box, :3].sum(0), box_of_point(points, boxes)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    arguments = random_points(50, 0), random_boxes(5, 0)
    for result, wanted in zip(compiled(*arguments), run(*arguments), strict=True):
        assert torch.equal(result, wanted)


def test_wrong_inputs_are_named():
    points, boxes = random_points(4, 0), random_boxes(3, 0)
    with pytest.raises(ValueError, match=r"points_in_boxes: points must be \(P, >=3\)"):
        points_in_boxes(points[:, :2], boxes)
    with pytest.raises(ValueError, match=r"box_of_point: boxes must be \(K, >=7\)"):
        box_of_point(points, boxes[:, :6])
    with pytest.raises(TypeError, match=r"points_in_boxes: boxes must be .*float64, got .*float32"):
        points_in_boxes(points, boxes.float())
    for margin in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="margin must be a finite number >= 0"):
            points_in_boxes(points, boxes, margin=margin)
