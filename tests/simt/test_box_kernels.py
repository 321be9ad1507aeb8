"""The CUDA kernels of the box operators on the interpreter: bit for bit what the CPU computes."""

import math

import pytest
import torch
from simt_library import load_simt_library, schedule

import perception3d.ops  # noqa: F401  # registers what torch.ops.perception3d names

simt = load_simt_library()
native = torch.ops.perception3d
DTYPES = (torch.float32, torch.float64)
NAN, INF = float("nan"), float("inf")


def crowd(count, seed, extent=20.0, dtype=torch.float32):
    """Boxes of 0.1 to 6 m; many overlap."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 7, generator=generator, dtype=torch.float64)
    boxes[:, :2] = (boxes[:, :2] - 0.5) * extent
    boxes[:, 3:6] = 0.1 + 5.9 * boxes[:, 3:6] ** 2
    boxes[:, 6] = (boxes[:, 6] - 0.5) * 4 * math.pi
    return boxes.to(dtype)


def odd_boxes(dtype):
    """Boxes with numbers that are not finite, and sizes of 0 and below."""
    boxes = crowd(14, 9, extent=2.0, dtype=dtype)
    for column in range(7):
        boxes[column, column] = (NAN, INF, -INF)[column % 3]
    boxes[8, 3], boxes[9, 4], boxes[10, 5] = 0.0, -1.0, -2.0
    return boxes


def scores_of(count, seed, dtype=torch.float32):
    """Few distinct scores, so that many tie."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, max(count // 3, 1), (count,), generator=generator).to(dtype)


def same(ours, theirs):
    return torch.equal(ours.nan_to_num(-7.0), theirs.nan_to_num(-7.0))


@pytest.mark.parametrize("measure", range(5))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (32, 64), (33, 65), (5, 130), (70, 3)])
def test_overlap_matrix(measure, dtype, rows, columns):
    a, b = crowd(rows, 1, dtype=dtype), crowd(columns, 2, dtype=dtype)
    result = simt.box_overlap(a, b, measure, False)
    assert torch.equal(result, native.box_overlap(a, b, measure, False))
    with schedule(2):
        assert torch.equal(simt.box_overlap(a, b, measure, False), result)


@pytest.mark.parametrize("measure", range(5))
@pytest.mark.parametrize("dtype", DTYPES)
def test_overlap_of_odd_boxes_and_pairs(measure, dtype):
    a, b = odd_boxes(dtype), crowd(40, 3, extent=4.0, dtype=dtype)
    for one, two in ((a, b), (b, a), (a, a)):
        result = simt.box_overlap(one, two, measure, False)
        assert same(result, native.box_overlap(one, two, measure, False))
    pairs = torch.cat([a, crowd(300, 4, dtype=dtype)])
    others = torch.cat([crowd(300, 5, dtype=dtype), a])
    result = simt.box_overlap(pairs, others, measure, True)
    assert same(result, native.box_overlap(pairs, others, measure, True))


@pytest.mark.parametrize("aligned", [False, True])
def test_overlap_without_boxes(aligned):
    nothing = torch.zeros(0, 7)
    assert simt.box_overlap(nothing, nothing, 1, aligned).numel() == 0
    if not aligned:
        assert simt.box_overlap(nothing, crowd(3, 0), 1, False).shape == (0, 3)
        assert simt.box_overlap(crowd(3, 0), nothing, 1, False).shape == (3, 0)


# 256 candidates are a chunk here: 600 need three, and the last ones meet what is kept before.
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 256, 257, 600])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nms_of_any_number_of_boxes(count, dtype):
    boxes, scores = crowd(count, count, extent=60.0, dtype=dtype), scores_of(count, 1, dtype)
    result = simt.rotated_nms(boxes, scores, 0.2, -1, -1)
    assert torch.equal(result, native.rotated_nms(boxes, scores, 0.2, -1, -1))
    assert count < 65 or 0 < result.numel() < count
    if count == 600:
        for number in (1, 2):
            with schedule(number):
                assert torch.equal(simt.rotated_nms(boxes, scores, 0.2, -1, -1), result)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.99, 1.0, 5.0])
def test_nms_thresholds(threshold):
    boxes, scores = crowd(300, 6, extent=50.0), scores_of(300, 2)
    boxes[150:200] = boxes[:50]  # identical ones: an IoU of exactly 1
    result = simt.rotated_nms(boxes, scores, threshold, -1, -1)
    assert torch.equal(result, native.rotated_nms(boxes, scores, threshold, -1, -1))


@pytest.mark.parametrize(
    ("pre_max", "post_max"),
    [(0, -1), (1, -1), (64, -1), (300, -1), (9999, 40), (-1, 0), (-1, 1), (-1, 64), (-1, 257)],
)
def test_nms_limits(pre_max, post_max):
    boxes, scores = crowd(400, 7, extent=90.0), scores_of(400, 3)
    result = simt.rotated_nms(boxes, scores, 0.1, pre_max, post_max)
    assert torch.equal(result, native.rotated_nms(boxes, scores, 0.1, pre_max, post_max))
    assert post_max < 0 or result.numel() <= post_max


@pytest.mark.parametrize("dtype", DTYPES)
def test_nms_of_odd_boxes_and_scores(dtype):
    boxes = torch.cat([odd_boxes(dtype)] * 3)
    scores = scores_of(len(boxes), 4, dtype)
    scores[:12] = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 0.0] * 2)
    result = simt.rotated_nms(boxes, scores, 0.3, -1, -1)
    assert torch.equal(result, native.rotated_nms(boxes, scores, 0.3, -1, -1))


def test_one_box_suppresses_across_chunks():
    boxes = crowd(1, 8).repeat(700, 1)
    scores = torch.zeros(700)
    assert simt.rotated_nms(boxes, scores, 0.5, -1, -1).tolist() == [0]
    boxes[:, 0] = torch.arange(700) * 100.0
    assert simt.rotated_nms(boxes, scores, 0.5, -1, -1).tolist() == list(range(700))
    boxes[600] = boxes[300]
    wanted = [row for row in range(700) if row != 600]
    assert simt.rotated_nms(boxes, scores, 0.5, -1, -1).tolist() == wanted


@pytest.mark.parametrize("count", [0, 1, 64, 300, 600])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("post_max", [-1, 70])
def test_circle_nms(count, dtype, post_max):
    generator = torch.Generator().manual_seed(count)
    centers = torch.randint(0, 60, (count, 2), generator=generator).to(dtype)  # exact distances
    if count > 10:
        centers[3, 0], centers[7, 1] = NAN, INF
    scores = scores_of(count, 5, dtype)
    for squared in (0.0, 4.0, 1e4):
        result = simt.circle_nms(centers, scores, squared, post_max)
        assert torch.equal(result, native.circle_nms(centers, scores, squared, post_max))


@pytest.mark.parametrize("margin", [0.0, 0.25])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("points", "boxes"), [(1, 1), (32, 31), (128, 32), (129, 33), (1024, 2), (2500, 70)]
)
def test_points_in_boxes(margin, dtype, points, boxes):
    generator = torch.Generator().manual_seed(points)
    cloud = (torch.rand(points, 5, generator=generator, dtype=torch.float64) - 0.5) * 12
    cloud, targets = cloud.to(dtype), crowd(boxes, 10, extent=12.0, dtype=dtype)
    targets[:, 2] = 0.0
    if points > 100:
        cloud[5, 0], cloud[6, 1], cloud[7, 2], cloud[8, 0] = NAN, INF, NAN, -INF
        targets[0, :2], cloud[9, :2] = 0.0, 0.0
    if boxes > 30:
        targets[20:30] = odd_boxes(dtype)[:10]
    result = simt.points_in_boxes(cloud, targets, margin)
    wanted = native.points_in_boxes(cloud, targets, margin)
    assert torch.equal(result[0], wanted[0])
    assert torch.equal(result[1], wanted[1])
    assert points < 100 or result[0].numel() > 0
    with schedule(2):
        assert torch.equal(simt.points_in_boxes(cloud, targets, margin)[1], wanted[1])


def test_points_on_faces():
    box = torch.tensor([[1.0, 2.0, 0.0, 4.0, 2.0, 2.0, 0.0]])
    cloud = torch.tensor([[3.0, 2.0, 0.0], [1.0, 3.0, 1.0], [3.0, 3.0, -1.0], [3.0, 3.0, 1.5]])
    assert simt.points_in_boxes(cloud, box, 0.0)[1].tolist() == [0, 1, 2]
    beyond = torch.tensor([[3.5, 2.0, 0.0], [3.25, 2.0, 0.0]])
    assert simt.points_in_boxes(beyond, box, 0.5)[1].tolist() == [1]  # the face itself is outside


@pytest.mark.parametrize(("points", "boxes"), [(0, 0), (0, 3), (5, 0)])
def test_no_points_or_no_boxes(points, boxes):
    result = simt.points_in_boxes(torch.zeros(points, 3), crowd(boxes, 0), 0.0)
    assert [part.tolist() for part in result] == [[], []]


def test_shells_refuse_what_kernels_cannot_take():
    boxes, scores = crowd(3, 0), torch.zeros(3)
    for call, message in (
        (lambda: simt.box_overlap(boxes, boxes, 5, False), "measure must be 0 to 4, got 5"),
        (lambda: simt.box_overlap(boxes, boxes[:2], 1, True), "boxes_b must have size 3"),
        (lambda: simt.box_overlap(boxes[:, :6].contiguous(), boxes, 1, False), "must have size 7"),
        (lambda: simt.box_overlap(boxes, boxes.double(), 1, False), "boxes_b must be Float"),
        (lambda: simt.rotated_nms(boxes, scores[:2], 0.5, -1, -1), "scores must have size 3"),
        (lambda: simt.rotated_nms(boxes, scores, -0.5, -1, -1), "iou_threshold must be >= 0"),
        (lambda: simt.rotated_nms(boxes, scores, 0.5, -2, -1), "pre_max must be >= -1"),
        (lambda: simt.circle_nms(boxes[:, :2], scores, 1.0, -1), "must be contiguous"),
        (lambda: simt.circle_nms(boxes[:, :2].contiguous(), scores, 1.0, -2), "post_max"),
        (lambda: simt.points_in_boxes(boxes[:, :2].contiguous(), boxes, 0.0), "at least 3 columns"),
        (lambda: simt.points_in_boxes(boxes, boxes, -1.0), "margin must be >= 0"),
        (lambda: simt.points_in_boxes(boxes.half(), boxes, 0.0), "float32 or float64"),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()
