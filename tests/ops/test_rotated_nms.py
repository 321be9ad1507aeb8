"""Suppression against hand-computed cases, the reference, and its own definition."""

import math

import pytest
import torch
from box_samples import random_boxes
from hypothesis import given, settings
from hypothesis import strategies as st

from perception3d.ops import box_iou, circle_nms, rotated_nms
from perception3d.ops.reference import rotated_nms as reference

DTYPES = (torch.float32, torch.float64)


def row_of_boxes(positions):
    """2 x 2 m boxes along x: neighbours 1 m apart have IoU 1/3."""
    boxes = torch.zeros(len(positions), 7, dtype=torch.float64)
    boxes[:, 0] = torch.tensor(positions, dtype=torch.float64)
    boxes[:, 3:6] = 2
    return boxes


def random_scores(count, seed, *, dtype=torch.float64, levels=20):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (count,), generator=generator).to(dtype) / levels


@pytest.mark.parametrize("nms", [rotated_nms, reference.rotated_nms])
@pytest.mark.parametrize(
    ("positions", "scores", "threshold", "kept"),
    [
        ([0, 1, 2], [0.9, 0.8, 0.7], 0.3, [0, 2]),  # 1 falls to 0; 2 touches 0, and 1 is gone
        ([0, 1, 2], [0.7, 0.8, 0.9], 0.3, [2, 0]),
        ([0, 1, 2], [0.8, 0.9, 0.7], 0.3, [1]),
        ([0, 1, 2], [0.5, 0.5, 0.5], 0.3, [0, 2]),  # equal scores: lower row first
        ([0, 1, 2], [0.9, 0.8, 0.7], 0.34, [0, 1, 2]),
        ([0, 0], [0.1, 0.2], 1.0, [1, 0]),  # IoU 1 is not above 1
        ([0, 2], [0.1, 0.2], 0.0, [1, 0]),  # touching is not above 0
        ([0, 1.999], [0.1, 0.2], 0.0, [1]),
        ([0], [0.1], 0.5, [0]),
        ([], [], 0.5, []),
        ([0, 5], [-0.0, 0.0], 0.5, [0, 1]),  # -0 and 0 are equal
        ([0, 5, 10], [-1.0, -math.inf, -0.5], 0.5, [2, 0, 1]),
        ([0, 5, 10], [math.nan, -math.inf, 0.5], 0.5, [2, 0, 1]),  # NaN ranks as -inf
    ],
)
def test_rotated_by_hand(nms, positions, scores, threshold, kept):
    scores = torch.tensor(scores, dtype=torch.float64)
    assert nms(row_of_boxes(positions), scores, threshold).tolist() == kept


@pytest.mark.parametrize("nms", [circle_nms, reference.circle_nms])
@pytest.mark.parametrize(
    ("positions", "scores", "squared_distance", "kept"),
    [
        ([0, 1, 2], [0.9, 0.8, 0.7], 1.0, [0, 2]),  # at the distance: dropped
        ([0, 1, 2], [0.9, 0.8, 0.7], 0.999, [0, 1, 2]),
        ([0, 1, 2], [0.9, 0.8, 0.7], 4.0, [0]),
        ([0, 1, 2], [0.5, 0.5, 0.5], 1.0, [0, 2]),
        ([0, 0], [0.1, 0.2], 0.0, [1]),
        ([0, math.nan, 0], [0.3, 0.2, 0.1], 5.0, [0, 1]),  # NaN is near nothing
        ([], [], 1.0, []),
    ],
)
def test_circle_by_hand(nms, positions, scores, squared_distance, kept):
    centers = torch.tensor([[x, 3.0] for x in positions], dtype=torch.float64).reshape(-1, 2)
    scores = torch.tensor(scores, dtype=torch.float64)
    assert nms(centers, scores, squared_distance).tolist() == kept


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 63, 64, 65, 200, 513])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.9])
def test_rotated_matches_the_reference(dtype, count, threshold):
    boxes = random_boxes(count, count, extent=25.0, dtype=dtype)
    scores = random_scores(count, count, dtype=dtype)
    keep = rotated_nms(boxes, scores, threshold)
    assert keep.dtype == torch.int64
    assert torch.equal(keep, reference.rotated_nms(boxes, scores, threshold))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 63, 64, 65, 200, 513])
@pytest.mark.parametrize("squared_distance", [0.0, 0.175, 4.0])
def test_circle_matches_the_reference(dtype, count, squared_distance):
    centers = random_boxes(count, count, extent=25.0, dtype=dtype)[:, :2]
    scores = random_scores(count, count, dtype=dtype)
    keep = circle_nms(centers, scores, squared_distance)
    assert torch.equal(keep, reference.circle_nms(centers, scores, squared_distance))


@given(st.integers(0, 90), st.integers(0, 10**6), st.floats(0, 1), st.sampled_from([2.0, 12.0]))
@settings(deadline=None, max_examples=60)
def test_rotated_keeps_what_its_definition_says(count, seed, threshold, extent):
    boxes = random_boxes(count, seed, extent=extent)
    scores = random_scores(count, seed)
    keep = rotated_nms(boxes, scores, threshold)
    kept = boxes[keep]
    between = box_iou(kept, kept).fill_diagonal_(0)
    assert (between <= threshold).all()  # no kept box suppresses another
    ranks = torch.empty(count, dtype=torch.int64)
    ranks[torch.argsort(scores, descending=True, stable=True)] = torch.arange(count)
    assert (ranks[keep].diff() > 0).all()  # in order of visits
    dropped = torch.ones(count, dtype=torch.bool)
    dropped[keep] = False
    reason = (box_iou(kept, boxes[dropped]) > threshold) & (
        ranks[keep][:, None] < ranks[dropped][None]
    )
    assert reason.any(0).all()  # each dropped box has a better one to blame


def test_limits():
    boxes, scores = random_boxes(300, 1, extent=40.0), random_scores(300, 1)
    everything = rotated_nms(boxes, scores, 0.2)
    for most in (0, 1, 64, 65, len(everything), 10_000):
        assert torch.equal(rotated_nms(boxes, scores, 0.2, post_max=most), everything[:most])
    order = torch.argsort(scores, descending=True, stable=True)
    for most in (0, 1, 70, 300, 10_000):
        best = order[:most]
        expected = best[rotated_nms(boxes[best], scores[best], 0.2)]
        assert torch.equal(rotated_nms(boxes, scores, 0.2, pre_max=most), expected)
    both = rotated_nms(boxes, scores, 0.2, pre_max=70, post_max=9)
    assert torch.equal(both, rotated_nms(boxes, scores, 0.2, pre_max=70)[:9])
    centers = boxes[:, :2]
    for most in (0, 5, 10_000):
        expected = circle_nms(centers, scores, 1.0)[:most]
        assert torch.equal(circle_nms(centers, scores, 1.0, post_max=most), expected)


@pytest.mark.parametrize("column", [0, 1, 3, 4, 6])
def test_a_box_that_is_not_finite_is_kept_and_suppresses_nothing(column):
    boxes = row_of_boxes([0, 0, 0])
    boxes[0, column] = math.nan
    scores = torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64)
    for nms in (rotated_nms, reference.rotated_nms):
        assert nms(boxes, scores, 0.1).tolist() == [0, 1]
        assert nms(boxes, scores.flip(0), 0.1).tolist() == [2, 0]


def test_many_boxes_kept_and_many_scores():
    """Far-apart boxes all stay, in the order of distinct scores of every magnitude and sign."""
    generator = torch.Generator().manual_seed(0)
    for dtype in DTYPES:
        scores = torch.randn(3000, generator=generator, dtype=dtype)
        scores = scores * 10 ** torch.randint(-30, 30, (3000,), generator=generator).to(dtype)
        boxes = row_of_boxes([3.0 * i for i in range(3000)]).to(dtype)
        expected = torch.argsort(scores, descending=True, stable=True)
        assert torch.equal(rotated_nms(boxes, scores, 0.0), expected)
        assert torch.equal(circle_nms(boxes[:, :2], scores, 1.0), expected)


def test_every_thread_count_keeps_the_same():
    boxes, scores = random_boxes(4000, 3, extent=300.0), random_scores(4000, 3)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(rotated_nms(boxes, scores, 0.2))
    finally:
        torch.set_num_threads(threads)
    assert len(results[0]) > 2000  # enough tests of circles for more than one thread
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_strides_columns_and_gradients_do_not_matter():
    wide = random_boxes(50, 4, columns=9).requires_grad_()
    scores = random_scores(100, 4).requires_grad_()
    keep = rotated_nms(wide.T.contiguous().T, scores[::2], 0.3)
    assert torch.equal(keep, rotated_nms(wide[:, :7].contiguous(), scores[::2].contiguous(), 0.3))
    assert not keep.requires_grad
    assert not circle_nms(wide[:, :2], scores[::2], 0.3).requires_grad


def test_opcheck():
    boxes, scores = random_boxes(9, 0), random_scores(9, 0)
    rotated_nms(boxes, scores, 0.5)
    operators = torch.ops.perception3d
    torch.library.opcheck(operators.rotated_nms.default, (boxes, scores, 0.2, -1, 4))
    centers = boxes[:, :2].contiguous()
    torch.library.opcheck(operators.circle_nms.default, (centers, scores, 0.2, -1))


def test_compiles_whole():
    def run(boxes, scores):
        kept = boxes[rotated_nms(boxes, scores, 0.2, post_max=4)]
        return kept.sum(0), boxes[circle_nms(boxes[:, :2], scores, 0.2)].sum(0)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    arguments = random_boxes(9, 0), random_scores(9, 0)
    for result, wanted in zip(compiled(*arguments), run(*arguments), strict=True):
        assert torch.equal(result, wanted)


def test_wrong_inputs_are_named():
    boxes, scores = random_boxes(3, 0), random_scores(3, 0)
    with pytest.raises(ValueError, match=r"rotated_nms: boxes must be \(K, >=7\) .* got \(3, 5\)"):
        rotated_nms(boxes[:, :5], scores, 0.5)
    with pytest.raises(ValueError, match=r"rotated_nms: scores must be \(3,\)"):
        rotated_nms(boxes, scores[:2], 0.5)
    with pytest.raises(TypeError, match="rotated_nms: scores must be .*float64, got .*float32"):
        rotated_nms(boxes, scores.float(), 0.5)
    with pytest.raises(ValueError, match="iou_threshold must be >= 0, got -0.1"):
        rotated_nms(boxes, scores, -0.1)
    with pytest.raises(ValueError, match="iou_threshold must be >= 0, got nan"):
        rotated_nms(boxes, scores, math.nan)
    with pytest.raises(ValueError, match="rotated_nms: pre_max must be None or >= 0, got -1"):
        rotated_nms(boxes, scores, 0.5, pre_max=-1)
    with pytest.raises(ValueError, match=r"circle_nms: centers must be \(K, 2\)"):
        circle_nms(boxes, scores, 0.5)
    with pytest.raises(ValueError, match="squared_distance must be >= 0"):
        circle_nms(boxes[:, :2], scores, -1.0)
    with pytest.raises(ValueError, match="circle_nms: post_max must be None or >= 0, got -2"):
        circle_nms(boxes[:, :2], scores, 1.0, post_max=-2)
