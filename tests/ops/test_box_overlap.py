"""Overlap, IoU and GIoU against hand-computed tables, the reference, shapely and invariances."""

import math

import pytest
import torch
from box_samples import awkward_boxes, box_strategy, random_boxes, shapely_measures
from hypothesis import given, settings
from hypothesis import strategies as st

from perception3d.ops import box_iou, box_overlap
from perception3d.ops.reference import box_overlap as reference

KINDS = ("bev", "3d", "giou_bev", "giou_3d")
DTYPES = (torch.float32, torch.float64)
ULP = 1e-12  # float64 rounding, with room

# a, b, overlap area, then IoU bev, 3d, giou_bev, giou_3d
TABLE = [
    # half of each 2 x 2 box; heights 2, shifted by 1
    ([0, 0, 0, 2, 2, 2, 0], [1, 0, 1, 2, 2, 2, 0], 2, 2 / 6, 2 / 14, 2 / 6, 2 / 14 - 4 / 18),
    # a square in a square turned by 45 degrees: a regular octagon
    (
        [0, 0, 0, 2, 2, 1, 0],
        [0, 0, 0, 2, 2, 1, math.pi / 4],
        8 * (math.sqrt(2) - 1),
        (a := 8 * (math.sqrt(2) - 1)) / (8 - a),
        a / (8 - a),
        a / (8 - a) - (4 * math.sqrt(2) - (8 - a)) / (4 * math.sqrt(2)),
        a / (8 - a) - (4 * math.sqrt(2) - (8 - a)) / (4 * math.sqrt(2)),
    ),
    # a cross of two 4 x 2 boxes; the hull is an octagon of 16 - 4 * 0.5
    ([5, 5, 0, 4, 2, 3, 0], [5, 5, 0, 4, 2, 3, math.pi / 2], 4, 4 / 12, 4 / 12, 1 / 3 - 2 / 14,
     1 / 3 - 2 / 14),
    # touching along an edge
    ([0, 0, 0, 2, 2, 2, 0], [2, 0, 0, 2, 2, 2, 0], 0, 0, 0, 0, 0),
    # 2 m apart: the hull is 6 x 2
    ([0, 0, 0, 2, 2, 2, 0], [4, 0, 0, 2, 2, 2, 0], 0, 0, 0, -4 / 12, -4 / 12),
    # one above the other
    ([0, 0, 0, 2, 2, 2, 0], [0, 0, 4, 2, 2, 2, 0], 4, 1, 0, 1, -8 / 24),
]  # fmt: skip


@pytest.mark.parametrize("implementation", [box_overlap, reference.box_overlap])
@pytest.mark.parametrize("row", TABLE)
def test_overlap_of_the_table(implementation, row):
    a, b = (torch.tensor([box], dtype=torch.float64) for box in row[:2])
    assert implementation(a, b).item() == pytest.approx(row[2], abs=ULP)


@pytest.mark.parametrize("implementation", [box_iou, reference.box_iou])
@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("row", TABLE)
def test_iou_of_the_table(implementation, column, row):
    a, b = (torch.tensor([box], dtype=torch.float64) for box in row[:2])
    result = implementation(a, b, kind=KINDS[column]).item()
    assert result == pytest.approx(row[3 + column], abs=ULP)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_matches_shapely_on_random_boxes(dtype, tolerance):
    a, b = random_boxes(25, 0, dtype=dtype), random_boxes(30, 1, dtype=dtype)
    expected = [[shapely_measures(one, two) for two in b] for one in a]
    for name in ("overlap", *KINDS):
        result = box_overlap(a, b) if name == "overlap" else box_iou(a, b, kind=name)
        wanted = [[pair[name] for pair in row] for row in expected]
        wanted = torch.tensor(wanted, dtype=torch.float64)
        assert result.dtype == dtype
        torch.testing.assert_close(result.double(), wanted, atol=tolerance, rtol=0)


def test_matches_shapely_on_awkward_boxes():
    a, b = awkward_boxes()
    expected = [shapely_measures(one, two) for one, two in zip(a, b, strict=True)]
    for kind in KINDS:
        wanted = torch.tensor([pair[kind] for pair in expected], dtype=torch.float64)
        for first, second in ((a, b), (b, a)):
            result = box_iou(first, second, kind=kind, aligned=True)
            torch.testing.assert_close(result, wanted, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matches_the_reference(kind, dtype):
    a, b = random_boxes(70, 2, dtype=dtype), random_boxes(130, 3, dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float32 else ULP  # float32: rounding of the result alone
    expected = reference.box_iou(a, b, kind=kind)
    torch.testing.assert_close(box_iou(a, b, kind=kind), expected, atol=tolerance, rtol=0)
    aligned = reference.box_iou(a, b[:70], kind=kind, aligned=True)
    result = box_iou(a, b[:70], kind=kind, aligned=True)
    torch.testing.assert_close(result, aligned, atol=tolerance, rtol=0)


def test_reference_matches_on_awkward_boxes():
    a, b = awkward_boxes()
    torch.testing.assert_close(
        box_overlap(a, b), reference.box_overlap(a, b), atol=1e-9, rtol=1e-12
    )
    for kind in KINDS:
        torch.testing.assert_close(
            box_iou(a, b, kind=kind), reference.box_iou(a, b, kind=kind), atol=ULP, rtol=0
        )


def test_boxes_that_touch_or_part_share_exactly_nothing():
    a, b = awkward_boxes()
    assert box_overlap(a, b, aligned=True)[8:13].tolist() == [0.0] * 5
    # turned in place, all around: edges meet at x = 1 up to rounding
    yaw = torch.linspace(0, 2 * math.pi, 37, dtype=torch.float64)
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    first = torch.stack([zero, zero, zero, 2 * one, 2 * one, one, yaw], 1)
    second = torch.stack([2 * yaw.cos(), 2 * yaw.sin(), zero, 2 * one, 2 * one, one, yaw], 1)
    assert box_overlap(first, second, aligned=True).count_nonzero() == 0


@given(box_strategy(), box_strategy())
@settings(deadline=None, max_examples=150)
def test_symmetric(box_a, box_b):
    a, b = (torch.tensor([box], dtype=torch.float64) for box in (box_a, box_b))
    for kind in KINDS:
        forward, backward = box_iou(a, b, kind=kind).item(), box_iou(b, a, kind=kind).item()
        assert forward == pytest.approx(backward, abs=1e-11)


@given(box_strategy(), box_strategy())
@settings(deadline=None, max_examples=150)
def test_in_range_and_ordered(box_a, box_b):
    a, b = (torch.tensor([box], dtype=torch.float64) for box in (box_a, box_b))
    iou = {kind: box_iou(a, b, kind=kind).item() for kind in KINDS}
    assert 0 <= iou["bev"] <= 1 + ULP
    assert 0 <= iou["3d"] <= 1 + ULP
    assert -1 <= iou["giou_bev"] <= iou["bev"] + ULP
    assert -1 <= iou["giou_3d"] <= iou["3d"] + ULP
    assert box_overlap(a, b).item() <= min(box_a[3] * box_a[4], box_b[3] * box_b[4])


@given(box_strategy(), box_strategy(), st.floats(-7, 7), st.floats(-50, 50), st.floats(-50, 50))
@settings(deadline=None, max_examples=150)
def test_turning_and_shifting_the_scene_changes_nothing(box_a, box_b, angle, shift_x, shift_y):
    boxes = torch.tensor([box_a, box_b], dtype=torch.float64)
    moved = boxes.clone()
    cos, sin = math.cos(angle), math.sin(angle)
    moved[:, 0] = cos * boxes[:, 0] - sin * boxes[:, 1] + shift_x
    moved[:, 1] = sin * boxes[:, 0] + cos * boxes[:, 1] + shift_y
    moved[:, 6] += angle
    for kind in KINDS:
        before = box_iou(boxes[:1], boxes[1:], kind=kind).item()
        # a shift of 50 m costs 1e-14 m of the gap, which a box of 1 mm sees
        assert box_iou(moved[:1], moved[1:], kind=kind).item() == pytest.approx(before, abs=1e-9)


@given(box_strategy(), st.integers(-3, 3))
@settings(deadline=None, max_examples=100)
def test_a_box_and_itself(box, half_turns):
    a = torch.tensor([box], dtype=torch.float64)
    b = a.clone()
    b[0, 6] += half_turns * math.pi
    for kind in KINDS:
        assert box_iou(a, b, kind=kind).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 3), (3, 0)])
def test_empty(rows, columns):
    a, b = random_boxes(rows, 0), random_boxes(columns, 1)
    assert box_overlap(a, b).shape == (rows, columns)
    for kind in KINDS:
        assert box_iou(a, b, kind=kind).shape == (rows, columns)
        assert box_iou(a, a, kind=kind, aligned=True).shape == (rows,)


def test_boxes_without_size():
    flat = torch.tensor([[0, 0, 0, 0, 2, 1, 0.5], [0, 0, 0, 2, -3, 1, 0.5]], dtype=torch.float64)
    solid = torch.tensor([[0, 0, 0, 4, 4, 1, 0.5]], dtype=torch.float64)
    point = torch.tensor([[1, 2, 3, 0, 0, 0, 0]], dtype=torch.float64)
    assert box_overlap(flat, solid).tolist() == [[0.0], [0.0]]
    for kind in KINDS:
        for boxes_a, boxes_b in ((flat, solid), (solid, flat), (flat, flat), (point, point)):
            result = box_iou(boxes_a, boxes_b, kind=kind)
            assert result.isfinite().all()
            torch.testing.assert_close(
                result, reference.box_iou(boxes_a, boxes_b, kind=kind), atol=ULP, rtol=0
            )
    assert box_iou(point, point).item() == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", range(7))
def test_numbers_that_are_not_finite_give_nan_where_they_matter(bad, column):
    boxes = random_boxes(3, 5, extent=200.0)  # far apart: the result would be 0
    broken = boxes.clone()
    broken[1, column] = bad
    rows_of_z = column in (2, 5)
    for kind in KINDS:
        result = box_iou(boxes, broken, kind=kind)
        spoilt = torch.zeros(3, 3, dtype=torch.bool)
        spoilt[:, 1] = not rows_of_z or kind.endswith("3d")
        assert torch.equal(result.isnan(), spoilt)
        assert torch.equal(box_iou(broken, boxes, kind=kind).isnan(), spoilt.T)
        assert torch.equal(reference.box_iou(boxes, broken, kind=kind).isnan(), spoilt)
    spoilt[:, 1] = not rows_of_z
    assert torch.equal(box_overlap(boxes, broken).isnan(), spoilt)
    assert torch.equal(reference.box_overlap(boxes, broken).isnan(), spoilt)


def test_further_columns_and_strides_do_not_matter():
    wide = random_boxes(10, 6, columns=9)
    strided = torch.stack([wide, wide], 1)[:, 0].T.contiguous().T
    assert not strided.is_contiguous()
    expected = box_iou(wide[:, :7].contiguous(), wide[:, :7].contiguous())
    assert torch.equal(box_iou(strided, wide), expected)


def test_every_thread_count_gives_the_same_bits():
    a, b = random_boxes(200, 7), random_boxes(300, 8)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append([box_iou(a, b, kind=kind) for kind in KINDS])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(results[0], results[1], strict=True))
    assert all(torch.equal(*pair) for pair in zip(results[0], results[2], strict=True))


def test_an_input_that_requires_grad_is_refused():
    boxes = random_boxes(2, 0).requires_grad_()
    with pytest.raises(ValueError, match="box_iou: boxes_b must not require grad"):
        box_iou(boxes.detach(), boxes)
    with pytest.raises(ValueError, match="box_overlap: boxes_a must not require grad"):
        box_overlap(boxes, boxes)
    with torch.no_grad():
        assert not box_iou(boxes, boxes).requires_grad


def test_the_reference_has_the_right_gradient():
    a = torch.tensor([[0.0, 0, 0, 4, 2, 2, 0.3]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[0.7, 0.4, 0.3, 3, 2.5, 2, 0.9]], dtype=torch.float64, requires_grad=True)
    for kind in KINDS:
        assert torch.autograd.gradcheck(
            lambda x, y, kind=kind: reference.box_iou(x, y, kind=kind), (a, b)
        )


@pytest.mark.parametrize("aligned", [False, True])
def test_opcheck(aligned):
    box_overlap(random_boxes(1, 0), random_boxes(1, 0))
    operator = torch.ops.perception3d.box_overlap.default
    for measure in range(5):
        arguments = (random_boxes(4, 0), random_boxes(4, 1), measure, aligned)
        torch.library.opcheck(operator, arguments)


@pytest.mark.parametrize("kind", ["bev", "3d", "giou_bev", "giou_3d"])
def test_compiles_whole(kind):
    def run(a, b):
        return box_iou(a, b, kind=kind) + box_overlap(a, b).sqrt()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    boxes = random_boxes(5, 0), random_boxes(4, 1)
    assert torch.equal(compiled(*boxes), run(*boxes))


def test_wrong_inputs_are_named():
    boxes = random_boxes(3, 0)
    with pytest.raises(ValueError, match=r"box_iou: boxes_a must be \(A, >=7\) .* got \(3, 6\)"):
        box_iou(boxes[:, :6], boxes)
    with pytest.raises(TypeError, match="box_iou: boxes_b must be .*float64, got .* float32"):
        box_iou(boxes, boxes.float())
    with pytest.raises(TypeError, match="box_overlap: boxes_a must be .* got .* float16"):
        box_overlap(boxes.half(), boxes.half())
    with pytest.raises(TypeError, match="got list"):
        box_overlap([[0.0] * 7], boxes)
    with pytest.raises(ValueError, match=r"boxes_b must be \(3, >=7\)"):
        box_iou(boxes, boxes[:2], aligned=True)
    with pytest.raises(ValueError, match="kind must be one of .* got 'diou'"):
        box_iou(boxes, boxes, kind="diou")
