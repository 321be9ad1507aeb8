"""Heat maps and box codes, by hand and against plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perception3d.models.heads import BevGrid, ClassTasks, GaussianTargets
from perception3d.models.heads.gaussian import draw_gaussians, gaussian_radius
from perception3d.structures import Boxes3D, Targets

CLASSES = ("car", "bus", "cone")
TASKS = ClassTasks(CLASSES, (("car",), ("cone", "bus")))
GRID = BevGrid((0.5, 0.5, 1.0), (-4.0, -3.0, -1.0, 4.0, 3.0, 1.0), stride=2)  # 8 x 6 cells of 1 m


def frame(rows: list, labels: list) -> Targets:
    boxes = torch.tensor(rows, dtype=torch.float32).view(-1, 9)
    return Targets(
        Boxes3D(boxes), torch.tensor(labels, dtype=torch.int64), torch.ones(len(labels)).long()
    )


def box(x=0.0, y=0.0, z=0.0, size=(1.0, 1.0, 1.0), yaw=0.0, velocity=(0.0, 0.0)) -> list:
    return [x, y, z, *size, yaw, *velocity]


def assign(*frames: Targets, velocity=True, **options):
    return GaussianTargets(**options).assign(frames, TASKS, GRID, velocity=velocity)


def test_radius_by_hand():
    # 1 x 1 cells: min((2 + sqrt(4 - 4 * .9 / 1.1)) / 2, (4 + sqrt(1.6)) / 2, (sqrt(1.6) - .4) / 2)
    one = torch.ones(1)
    radius = gaussian_radius(one, one, 0.1)
    assert radius.item() == pytest.approx((math.sqrt(1.6) - 0.4) / 2, rel=1e-6)
    long = gaussian_radius(torch.tensor([20.0]), torch.tensor([2.0]), 0.7)
    inner = (22 + math.sqrt(22**2 - 4 * 40 * 0.3 / 1.7)) / 2
    mixed = (44 + math.sqrt(44**2 - 16 * 0.3 * 40)) / 2
    outer = (-2 * 0.7 * 22 + math.sqrt(4 * 0.49 * 22**2 + 16 * 0.7 * 0.3 * 40)) / 2
    assert long.item() == pytest.approx(min(inner, mixed, outer), rel=1e-5)


def test_heat_map_by_hand():
    car = assign(frame([box(0.3, 0.4)], [0]))[0]
    peak = torch.zeros(6, 8)
    # cell (x 4, y 3), radius 2, sigma 5 / 6
    for y in range(1, 6):
        for x in range(2, 7):
            peak[y, x] = math.exp(-((x - 4) ** 2 + (y - 3) ** 2) / (2 * (5 / 6) ** 2))
    assert torch.allclose(car.heatmap[0, 0], peak, atol=1e-7)
    assert car.heatmap[0, 0, 3, 4] == 1.0
    assert (car.heatmap > 0).sum() == 25


def test_codes_by_hand():
    rows = [box(0.3, 0.4, -0.5, (4.0, 2.0, 1.5), math.pi / 6, (3.0, -1.0))]
    car = assign(frame(rows, [0]))[0]
    expected = [0.3, 0.4, -0.5, math.log(4), math.log(2), math.log(1.5)]
    expected += [math.cos(math.pi / 6), math.sin(math.pi / 6), 3.0, -1.0]
    assert torch.allclose(car.codes[0, 0], torch.tensor(expected), atol=1e-6)
    assert car.cells[0, 0] == 3 * 8 + 4
    assert car.mask.tolist() == [[True]]
    assert torch.equal(car.boxes[0, 0], torch.tensor(rows[0]))
    assert assign(frame(rows, [0]), velocity=False)[0].codes.shape == (1, 1, 8)


def test_classes_go_to_their_task_and_channel():
    car, other = assign(frame([box(-3), box(0), box(3)], [1, 0, 2]))
    assert car.heatmap.shape == (1, 1, 6, 8)
    assert other.heatmap.shape == (1, 2, 6, 8)
    assert other.heatmap[0, 1, 3, 1] == 1  # bus
    assert other.heatmap[0, 0, 3, 7] == 1  # cone
    assert car.mask[0].tolist() == [True, False, False]
    assert other.mask[0].tolist() == [True, True, False]
    assert other.channels[0].tolist() == [1, 0, 0]


def test_centres_beyond_the_border_move_to_it():
    car = assign(frame([box(-100, 100), box(100, -100)], [0, 0]))[0]
    assert car.cells[0].tolist() == [5 * 8, 7]
    assert torch.equal(car.codes[0, :, :2], torch.tensor([[0.0, 0.5], [0.5, 0.0]]))
    assert car.heatmap[0, 0, 5, 0] == 1
    assert car.heatmap[0, 0, 0, 7] == 1


def test_unusable_boxes_keep_their_slot_without_counting():
    rows = [
        box(size=(0.0, 1.0, 1.0)),
        box(1),
        box(math.nan),
        box(2, size=(1.0, 1.0, -1.0)),
        box(size=(1.0, math.inf, 1.0)),
        box(3),
    ]
    car = assign(frame(rows, [0] * 6))[0]
    assert car.mask[0].tolist() == [False, True, False, False, False, True]
    assert (car.heatmap == 1).sum() == 2
    assert not car.codes[0, [0, 2, 3, 4]].any()
    assert not car.cells[0, [0, 2, 3, 4]].any()


def test_labels_that_are_no_class_are_left_out():
    car, other = assign(frame([box(0), box(1), box(2)], [-1, 7, 0]))
    assert car.mask[0].tolist() == [True, False, False]
    assert car.heatmap[0, 0, 3, 6] == 1
    assert not other.mask.any()
    assert not other.heatmap.any()


def test_further_boxes_than_slots_are_dropped():
    car, other = assign(frame([box(x) for x in range(-3, 4)], [0, 0, 0, 0, 1, 0, 0]), max_objects=3)
    assert car.mask.tolist() == [[True] * 3]
    assert car.cells[0].tolist() == [25, 26, 27]
    assert (car.heatmap == 1).sum() == 3
    assert other.mask.tolist() == [[True, False, False]]  # slots are counted per task


def test_no_box_at_all():
    for task in assign(frame([], []), frame([], [])):
        assert task.heatmap.shape[0] == 2
        assert not task.heatmap.any()
        assert task.mask.shape == (2, 0)


def test_unknown_velocity():
    rows = [box(velocity=(math.nan, math.nan))]
    assert assign(frame(rows, [0]))[0].codes[0, 0, 8:].isnan().all()
    zero = assign(frame(rows, [0]), unknown_velocity="zero")[0]
    assert zero.codes[0, 0, 8:].tolist() == [0, 0]


def test_input_is_left_alone():
    given_frame = frame([box(velocity=(math.nan, 0.0))], [1])
    before = given_frame.boxes.tensor.clone()
    assign(given_frame, unknown_velocity="zero")
    assert torch.equal(given_frame.boxes.tensor.nan_to_num(7.0), before.nan_to_num(7.0))
    assert given_frame.labels.tolist() == [1]


def random_frame(generator: torch.Generator, count: int) -> Targets:
    boxes = torch.rand(count, 9, generator=generator) * 8 - 4
    boxes[:, 3:6] = boxes[:, 3:6].abs() + 0.1
    labels = torch.randint(-1, 3, (count,), generator=generator)
    return Targets(Boxes3D(boxes), labels, torch.ones(count).long())


@given(st.integers(0, 2**16), st.integers(0, 12), st.integers(0, 12))
@settings(max_examples=25, deadline=None)
def test_frames_of_a_batch_do_not_meet(seed, first, second):
    generator = torch.Generator().manual_seed(seed)
    frames = [random_frame(generator, first), random_frame(generator, second)]
    joint = assign(*frames)
    for number, alone in enumerate(frames):
        for task, single in zip(joint, assign(alone), strict=True):
            slots = single.mask.shape[1]
            assert torch.equal(task.heatmap[number], single.heatmap[0])
            assert torch.equal(task.codes[number, :slots], single.codes[0])
            assert torch.equal(task.cells[number, :slots], single.cells[0])
            assert torch.equal(task.mask[number, :slots], single.mask[0])
            assert not task.mask[number, slots:].any()


@given(st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_drawing_equals_plain_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    count = 7
    plane = torch.randint(2, (count,), generator=generator)
    cell = torch.stack([torch.randint(size, (count,), generator=generator) for size in (9, 5)], 1)
    radius = torch.randint(0, 8, (count,), generator=generator, dtype=torch.int32)
    expected = torch.zeros(2, 5, 9)
    for k in range(count):
        r, (cx, cy) = int(radius[k]), cell[k].tolist()
        for y in range(5):
            for x in range(9):
                if abs(x - cx) <= r and abs(y - cy) <= r:
                    sigma = (2 * r + 1) / 6
                    value = math.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
                    expected[plane[k], y, x] = max(value, float(expected[plane[k], y, x]))
    drawn = draw_gaussians((2, 5, 9), plane, cell, radius)
    assert torch.allclose(drawn, expected, atol=1e-6)


@pytest.mark.parametrize(
    "settings_", [dict(overlap=0.0), dict(max_objects=0), dict(unknown_velocity="mean")]
)
def test_wrong_settings_are_refused(settings_):
    with pytest.raises(ValueError, match="GaussianTargets: "):
        GaussianTargets(**settings_)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([["car"], ["bus", "cones"]], "'cones' .did you mean 'cone'"),
        ([["car"], ["bus"]], r"not: \['cone'\]"),
        ([["car", "bus"], ["bus", "cone"]], r"not: \['bus'\]"),
    ],
)
def test_tasks_share_out_the_classes(tasks, message):
    with pytest.raises(ValueError, match=message):
        ClassTasks(CLASSES, tasks)


def test_grid_turns_metres_into_cells_and_back():
    assert GRID.size == (8, 6)
    points = torch.tensor([[-4.0, -3.0], [0.25, 1.5]])
    assert torch.equal(GRID.to_cells(points), torch.tensor([[0.0, 0.0], [4.25, 4.5]]))
    assert torch.equal(GRID.to_metres(GRID.to_cells(points)), points)
    with pytest.raises(ValueError, match=r"\(H, W\) = \(6, 8\), got \(8, 6\)"):
        GRID.check_map("Head", torch.zeros(1, 3, 8, 6))
    assert BevGrid((1, 1), (0, 0, 0, 5, 7, 1), 2).size == (3, 4)
    with pytest.raises(ValueError, match="BevGrid: "):
        BevGrid((1, 1), (0, 0, 0, -5, 7, 1))
