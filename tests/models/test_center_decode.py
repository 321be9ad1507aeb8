"""Predictions to boxes: round trip, limits, score correction, suppression."""

import math
from dataclasses import replace

import pytest
import torch

from perception3d.models.heads import (
    BevGrid,
    CenterDecoder,
    CenterHeadOutput,
    ClassTasks,
    GaussianTargets,
    TaskOutput,
)
from perception3d.models.heads.center_decode import top_values
from perception3d.structures import Boxes3D, Targets

CLASSES = ("car", "bus", "cone")
TASKS = ClassTasks(CLASSES, (("car",), ("cone", "bus")))
GRID = BevGrid((0.5, 0.5), (-40.0, -30.0, -1.0, 40.0, 30.0, 1.0), stride=2)  # 80 x 60 cells of 1 m
OPEN = CenterDecoder(iou_threshold=None, pre_max=None, post_max=None)


def frame(rows: list, labels: list) -> Targets:
    boxes = torch.tensor(rows, dtype=torch.float32).view(-1, 9)
    count = torch.ones(len(labels), dtype=torch.int64)
    return Targets(Boxes3D(boxes), torch.tensor(labels, dtype=torch.int64), count)


def box(x=0.0, y=0.0, size=(4.5, 1.9, 1.5), yaw=0.0, z=0.2, velocity=(1.0, -2.0)) -> list:
    return [x, y, z, *size, yaw, *velocity]


def perfect(frames: list, scores: list | None = None, iou: float | None = None, velocity=True):
    """Return the output that states exactly the given boxes; one score per box of the batch."""
    assigned = GaussianTargets().assign(frames, TASKS, GRID, velocity=velocity)
    width, height = GRID.size
    tasks = []
    for task in assigned:
        maps = torch.zeros(len(frames), task.codes.shape[2], height * width)
        hm = torch.full((len(frames), task.heatmap.shape[1], height * width), -20.0)
        for b, s in task.mask.nonzero().tolist():
            cell = task.cells[b, s]
            maps[b, :, cell] = task.codes[b, s]
            rank = (frames[b].boxes.tensor[:, :2] == task.boxes[b, s, :2]).all(1).nonzero()[0, 0]
            score = 0.9 if scores is None else scores[rank]
            hm[b, task.channels[b, s], cell] = math.log(score / (1 - score))
        shape = (len(frames), -1, height, width)
        parts = [part.reshape(shape) for part in maps.split([2, 1, 3, 2, maps.shape[1] - 8], 1)]
        output = TaskOutput(*parts[:4], hm.view(shape), parts[4] if velocity else None)
        if iou is not None:
            output = replace(output, iou=torch.full((len(frames), 1, height, width), iou))
        tasks.append(output)
    return CenterHeadOutput(tuple(tasks))


@pytest.mark.parametrize("decoder", [OPEN, CenterDecoder()])
def test_perfect_predictions_give_the_boxes_back(decoder):
    generator = torch.Generator().manual_seed(0)
    places = torch.randperm(8 * 6, generator=generator)[:20]
    boxes = torch.rand(20, 9, generator=generator) + 0.5
    boxes[:, 0] = places % 8 * 10 - 35 + boxes[:, 0]
    boxes[:, 1] = places // 8 * 10 - 25 + boxes[:, 1]
    boxes[:, 6] = torch.rand(20, generator=generator) * 6 - 3
    labels = torch.randint(3, (20,), generator=generator)
    given = Targets(Boxes3D(boxes), labels, torch.ones(20).long())
    empty, found = decoder.decode(perfect([frame([], []), given]), TASKS, GRID)
    assert len(empty) == 0
    assert len(found) == 20
    order = [int((boxes[:, :2] - row[:2]).norm(dim=1).argmin()) for row in found.boxes.tensor]
    assert sorted(order) == list(range(20))
    assert torch.allclose(found.boxes.tensor, boxes[order], atol=2e-5)
    assert torch.equal(found.labels, labels[order])
    assert torch.allclose(found.scores, torch.tensor(0.9), atol=1e-6)


def test_tasks_come_one_after_the_other_by_score():
    rows = [box(0), box(10), box(20), box(-10)]
    output = perfect([frame(rows, [1, 0, 2, 0])], [0.5, 0.3, 0.7, 0.8])
    found = OPEN.decode(output, TASKS, GRID)[0]
    assert found.labels.tolist() == [0, 0, 2, 1]
    assert torch.allclose(found.scores, torch.tensor([0.8, 0.3, 0.7, 0.5]))


def test_velocity_is_unknown_without_the_branch():
    output = perfect([frame([box()], [0])], velocity=False)
    assert OPEN.decode(output, TASKS, GRID)[0].boxes.velocities.isnan().all()


def test_score_threshold_is_exclusive_and_range_inclusive():
    output = perfect([frame([box(0), box(10), box(25)], [0, 0, 0])], [0.5, 0.25, 0.9])
    decoder = replace(OPEN, score_threshold=0.5, center_range=(-20, -20, -1, 20, 20, 1))
    assert len(decoder.decode(output, TASKS, GRID)[0]) == 0
    decoder = replace(decoder, score_threshold=0.2)
    assert decoder.decode(output, TASKS, GRID)[0].boxes.centers[:, 0].tolist() == [0, 10]
    at_the_top = perfect([frame([box(z=0.25)], [0])])
    for top, count in ((0.25, 1), (0.24, 0)):
        decoder = replace(OPEN, center_range=(-20, -20, -1, 20, 20, top))
        assert len(decoder.decode(at_the_top, TASKS, GRID)[0]) == count


def test_best_cells_are_those_of_all_classes():
    rows = [box(x, y) for x in range(-30, 30, 10) for y in (-10, 10)]
    scores = [0.2 + 0.05 * rank for rank in range(12)]
    output = perfect([frame(rows, [1, 2] * 6)], scores)
    found = replace(OPEN, max_objects=5).decode(output, TASKS, GRID)[0]
    assert torch.allclose(found.scores, torch.tensor(scores[:6:-1]))


def test_scores_are_corrected_by_the_predicted_iou():
    targets = [frame([box(0), box(10), box(20)], [0, 1, 2])]
    output = perfect(targets, [0.5, 0.6, 0.7], iou=0.2)  # IoU 0.6
    assert torch.allclose(OPEN.decode(output, TASKS, GRID)[0].scores, torch.tensor([0.5, 0.7, 0.6]))
    found = replace(OPEN, iou_rectifier=(0.1, 0.2, 0.3)).decode(output, TASKS, GRID)[0]
    expected = {0: 0.5**0.9 * 0.6**0.1, 1: 0.6**0.8 * 0.6**0.2, 2: 0.7**0.7 * 0.6**0.3}
    assert found.labels.tolist() == [0, 2, 1]
    assert found.scores.tolist() == pytest.approx([expected[k] for k in (0, 2, 1)], rel=1e-5)
    for raw, iou in ((-3.0, 0.0), (4.0, 1.0)):
        output = perfect(targets, [0.5, 0.5, 0.5], iou=raw)
        scores = replace(OPEN, iou_rectifier=0.5).decode(output, TASKS, GRID)[0].scores
        assert torch.allclose(scores, torch.tensor(math.sqrt(0.5 * iou)))


def test_suppression_inside_a_task_or_inside_a_class():
    # a bus over a cone (one task), and a car over both (another task)
    rows = [box(0.1), box(1.1), box(2.1)]
    output = perfect([frame(rows, [1, 2, 0])], [0.9, 0.8, 0.7])
    agnostic = replace(OPEN, iou_threshold=0.2).decode(output, TASKS, GRID)[0]
    assert agnostic.labels.tolist() == [0, 1]
    class_wise = replace(OPEN, iou_threshold=(0.2, 0.2, 0.2)).decode(output, TASKS, GRID)[0]
    assert class_wise.labels.tolist() == [0, 1, 2]


def test_every_class_has_its_threshold():
    rows = [box(0.1, -10), box(2.1, -10), box(0.1, 10), box(2.1, 10)]  # IoU 2.5 / 6.5
    output = perfect([frame(rows, [1, 1, 2, 2])], [0.9, 0.8, 0.7, 0.6])
    found = replace(OPEN, iou_threshold=(0.0, 0.3, 0.5)).decode(output, TASKS, GRID)[0]
    assert found.labels.tolist() == [1, 2, 2]
    limited = replace(OPEN, iou_threshold=(0.9, 0.9, 0.9), post_max=1)
    found = limited.decode(output, TASKS, GRID)[0]
    assert found.labels.tolist() == [1, 2]  # the limit is one per class


def test_turned_footprints_suppress_neighbours_instead_of_followers():
    side_by_side = perfect([frame([box(0, 0.1), box(0, 2.3)], [0, 0])], [0.9, 0.8])
    in_a_row = perfect([frame([box(0.1), box(2.1)], [0, 0])], [0.9, 0.8])
    true = replace(OPEN, iou_threshold=0.3)
    turned = replace(true, footprint_turn=-math.pi / 2)
    counts = [
        [len(decoder.decode(output, TASKS, GRID)[0]) for output in (side_by_side, in_a_row)]
        for decoder in (true, turned)
    ]
    assert counts == [[2, 1], [1, 2]]
    kept = turned.decode(in_a_row, TASKS, GRID)[0]
    assert kept.boxes.yaws.tolist() == [0, 0]  # only the look of the NMS is turned


def test_ties_go_to_the_lower_place():
    values = torch.tensor([0.5, 0.9, 0.5, 0.5, 0.9, 0.1])
    ranked, places = top_values(values, 4)
    assert places.tolist() == [1, 4, 0, 2]
    assert ranked.tolist() == values[[1, 4, 0, 2]].tolist()
    assert top_values(values, 100)[1].tolist() == [1, 4, 0, 2, 3, 5]


def test_nothing_finite_is_needed_to_decode_an_untrained_net():
    output = perfect([frame([box()], [0])])
    wild = replace(output.tasks[0], dim=torch.full_like(output.tasks[0].dim, 1e4))
    found = OPEN.decode(CenterHeadOutput((wild, output.tasks[1])), TASKS, GRID)[0]
    assert found.boxes.tensor.isfinite().all()


def test_half_precision_predictions_are_decoded_in_float32():
    output = perfect([frame([box(20.3, yaw=1.0)], [0])])
    half = CenterHeadOutput(
        tuple(
            TaskOutput(
                **{name: value.half() for name, value in vars(task).items() if value is not None}
            )
            for task in output.tasks
        )
    )
    found = OPEN.decode(half, TASKS, GRID)[0]
    assert found.boxes.tensor.dtype == found.scores.dtype == torch.float32
    assert found.boxes.tensor[0, 0].item() == pytest.approx(20.3, abs=1e-3)  # half alone: 0.016


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"one per class \(3\), got 2"):
        CenterDecoder(iou_threshold=(0.1, 0.2)).check_classes(3)
    with pytest.raises(ValueError, match="center_range must be"):
        CenterDecoder(center_range=(0, 1))
    with pytest.raises(ValueError, match="max_objects must be"):
        CenterDecoder(max_objects=0)
