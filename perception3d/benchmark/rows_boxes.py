"""Benchmark rows of the box operators."""

import importlib.util
import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from perception3d.benchmark.measure import Candidate
from perception3d.benchmark.peers import boxes as peers
from perception3d.benchmark.peers import points_in_boxes as member_peers
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.workloads import Workload, real_boxes
from perception3d.ops import box_iou, circle_nms, points_in_boxes, rotated_nms
from perception3d.ops.reference.box_overlap import box_iou as reference_iou
from perception3d.ops.reference.points_in_boxes import points_in_boxes as reference_members
from perception3d.ops.reference.rotated_nms import circle_nms as reference_circle
from perception3d.ops.reference.rotated_nms import rotated_nms as reference_rotated

REAL = ("f1", "f10")  # workloads made of the real frame, whose boxes are known
SIZES = (
    (4.6, 1.9, 1.7),
    (0.7, 0.7, 1.8),
    (8.0, 2.6, 3.2),
    (1.8, 0.8, 1.6),
)  # length, width, height


def detections_near(
    workload: Workload, objects: int, count: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return boxes and scores of a detector's raw output: jittered copies around seeded objects.

    Three quarters of the boxes crowd around the objects, as the candidates of one heat map peak
    do; the rest lies anywhere.

    Args:
        workload: its points are the places.
        objects: number of objects.
        count: number of boxes.
        seed: chooses the copies; the objects are the same for every seed.

    Returns:
        (count, 7) and (count,), float32, on the device of the workload.
    """
    generator = torch.Generator().manual_seed(objects)
    points = workload.points.cpu()
    rows = torch.randint(points.shape[0], (objects,), generator=generator)
    sizes = torch.tensor(SIZES)[torch.randint(len(SIZES), (objects,), generator=generator)]
    yaw = torch.rand(objects, 1, generator=generator) * 2 * math.pi
    things = torch.cat([points[rows, :3], sizes, yaw], 1)
    generator.manual_seed(seed)
    copies = things[torch.randint(objects, (count,), generator=generator)].clone()
    noise = torch.randn(count, 7, generator=generator)
    spread = torch.tensor([0.5, 0.5, 0.1, 0.05, 0.05, 0.05, 0.1])
    copies[:, :3] += noise[:, :3] * spread[:3]
    copies[:, 3:6] *= (noise[:, 3:6] * spread[3:6]).exp()
    copies[:, 6] += noise[:, 6] * spread[6]
    alone = torch.arange(count) % 4 == 0
    copies[alone, :2] += 30 * torch.randn(int(alone.sum()), 2, generator=generator)
    scores = torch.rand(count, generator=generator)
    return copies.to(workload.device), scores.to(workload.device)


def _nms_case(count: int, objects: int, threshold: float, workload: Workload) -> Case:
    boxes, scores = detections_near(workload, objects, count)
    wanted = reference_rotated(boxes, scores, threshold)
    return Case(
        ours=partial(rotated_nms, boxes, scores, threshold),
        peers={
            "torch matrix + greedy": partial(peers.torch_matrix_nms, boxes, scores, threshold),
            **_shapely_nms(workload, boxes, scores, threshold),
        },
        max_error=_difference([rotated_nms(boxes, scores, threshold)], [wanted]),
        floor_bytes=boxes.numel() * 4 + scores.numel() * 4 + wanted.numel() * 8,
    )


def _circle_case(count: int, objects: int, squared_distance: float, workload: Workload) -> Case:
    boxes, scores = detections_near(workload, objects, count)
    centers = boxes[:, :2].contiguous()
    wanted = reference_circle(centers, scores, squared_distance)
    peer = partial(peers.numpy_circle_nms, centers, scores, squared_distance)
    return Case(
        ours=partial(circle_nms, centers, scores, squared_distance),
        peers={"numpy, kept centres": peer} if workload.device.type == "cpu" else {},
        max_error=_difference([circle_nms(centers, scores, squared_distance)], [wanted]),
        floor_bytes=centers.numel() * 4 + scores.numel() * 4 + wanted.numel() * 8,
    )


def _iou_case(rows: int, columns: int, kind: str, workload: Workload) -> Case:
    a, _ = detections_near(workload, 60, rows)
    b, _ = detections_near(workload, 60, columns, seed=1)
    wanted = reference_iou(a.double(), b.double(), kind=kind)
    others: dict[str, Candidate] = {
        "torch, near pairs": partial(peers.torch_iou_matrix, a, b),
        **_shapely_iou(workload, a, b),
    }
    if kind != "bev":
        others = {"torch, dense": partial(reference_iou, a, b, kind=kind)}
    error = float((box_iou(a, b, kind=kind) - wanted).abs().max())
    return Case(
        ours=partial(box_iou, a, b, kind=kind),
        peers=others,
        max_error=error,
        floor_bytes=(a.numel() + b.numel() + rows * columns) * 4,
    )


def _members_case(workload: Workload) -> Case:
    points = workload.points
    real = workload.name in REAL
    boxes = real_boxes() if real else detections_near(workload, 69, 69)[0]
    boxes = boxes.to(workload.device)
    wanted = reference_members(points, boxes)
    return Case(
        ours=partial(points_in_boxes, points, boxes),
        peers={
            **_cpu_member_peers(workload, boxes),
            "torch, all pairs": partial(member_peers.torch_all_pairs, points, boxes),
            "torch, box by box": partial(member_peers.torch_box_by_box, points, boxes),
        },
        max_error=_difference(points_in_boxes(points, boxes), wanted),
        floor_bytes=points.numel() * 4 + boxes.numel() * 4 + 2 * wanted[0].numel() * 8,
    )


def _has(workload: Workload, package: str) -> bool:
    """Say whether a package of the CPU can serve as a peer."""
    return workload.device.type == "cpu" and importlib.util.find_spec(package) is not None


def _shapely_nms(
    workload: Workload, boxes: Tensor, scores: Tensor, threshold: float
) -> dict[str, Candidate]:
    if not _has(workload, "shapely"):
        return {}
    from perception3d.benchmark.peers.shapely_boxes import shapely_lazy_nms

    return {"shapely, kept boxes only": partial(shapely_lazy_nms, boxes, scores, threshold)}


def _shapely_iou(workload: Workload, a: Tensor, b: Tensor) -> dict[str, Candidate]:
    if not _has(workload, "shapely"):
        return {}
    from perception3d.benchmark.peers import shapely_boxes

    return {
        "shapely, vectorised": partial(shapely_boxes.shapely_iou_matrix, a, b),
        "shapely, pair by pair": partial(shapely_boxes.shapely_loop_iou_matrix, a, b),
    }


def _cpu_member_peers(workload: Workload, boxes: Tensor) -> dict[str, Candidate]:
    if workload.device.type != "cpu":
        return {}
    found: dict[str, Candidate] = {
        "numpy, bounds first": partial(member_peers.numpy_bounds_first, workload.points, boxes)
    }
    if _has(workload, "nuscenes"):
        from perception3d.benchmark.peers.devkit_boxes import devkit_box_by_box

        found["nuscenes-devkit, box by box"] = devkit_box_by_box(workload.points, boxes)
    return found


def _difference(ours: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return 0 for equal tables, else inf."""
    equal = all(torch.equal(one, two) for one, two in zip(ours, wanted, strict=True))
    return 0.0 if equal else math.inf


ROWS = (
    Row(
        "rotated_nms",
        "waymo_4096",
        partial(_nms_case, 4096, 150, 0.7),
        ("f1", "w180"),
        required={"shapely, kept boxes only": 100.0},
    ),
    Row(
        "rotated_nms",
        "nuscenes_1000",
        partial(_nms_case, 1000, 60, 0.2),
        ("tiny", "f1"),
        required={"shapely, kept boxes only": 50.0},
    ),
    Row(
        "circle_nms",
        "500",
        partial(_circle_case, 500, 60, 4.0),
        ("f1",),
        required={"numpy, kept centres": 15.0},
    ),
    Row(
        "box_iou",
        "bev_500x500",
        partial(_iou_case, 500, 500, "bev"),
        ("f1",),
        tolerance=1e-6,
        required={"torch, near pairs": 40.0},
    ),
    Row(
        "box_iou",
        "giou_3d_200x69",
        partial(_iou_case, 200, 69, "giou_3d"),
        ("f1",),
        tolerance=1e-6,
        required={"torch, dense": 10.0},
    ),
    Row(
        "points_in_boxes",
        "69_boxes",
        _members_case,
        ("tiny", "f1", "f10", "w180"),
        required={"numpy, bounds first": 5.0},
    ),
)
