"""Scene augmentations: points, boxes and the recorded matrix move together."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perception3d.structures import Boxes3D, Sample, Targets
from perception3d.transforms import (
    Pipeline,
    RandomFlip,
    RandomRotate,
    RandomScale,
    RandomTranslate,
)

TRANSFORMS = {
    "flip": RandomFlip(probability=0.5),
    "flip_x": RandomFlip(axes=("x",), probability=1.0),
    "flip_y": RandomFlip(axes=("y",), probability=1.0),
    "rotate": RandomRotate((-math.pi, math.pi)),
    "scale": RandomScale((0.5, 2.0)),
    "translate": RandomTranslate((3.0, 2.0, 1.0)),
}


def scene(seed, num_points=64, num_boxes=5):
    """Make a frame whose points lie in and around its boxes."""
    rng = np.random.default_rng(seed)
    boxes = np.zeros((num_boxes, 9), dtype=np.float32)
    boxes[:, :3] = rng.uniform(-40, 40, (num_boxes, 3))
    boxes[:, 3:6] = rng.uniform(0.5, 8, (num_boxes, 3))
    boxes[:, 6] = rng.uniform(-7, 7, num_boxes)
    boxes[:, 7:] = rng.normal(0, 5, (num_boxes, 2))
    points = rng.uniform(-50, 50, (num_points, 5)).astype(np.float32)
    if num_boxes:
        owners = rng.integers(0, num_boxes, num_points)
        points[:, :3] = boxes[owners, :3] + rng.normal(0, 2.5, (num_points, 3))
    targets = Targets(
        Boxes3D(torch.from_numpy(boxes)),
        torch.arange(num_boxes),
        torch.ones(num_boxes, dtype=torch.int64),
    )
    pose = torch.eye(4, dtype=torch.float64)
    return Sample("frame", torch.from_numpy(points), pose, targets)


def inside(points, boxes):
    """Return how deep each point lies in each box, in box half sizes: below 1 is inside."""
    offsets = points[:, None, :3].double() - boxes.centers.double()
    cos, sin = boxes.yaws.double().cos(), boxes.yaws.double().sin()
    local = torch.stack(
        [
            offsets[..., 0] * cos + offsets[..., 1] * sin,
            offsets[..., 1] * cos - offsets[..., 0] * sin,
            offsets[..., 2],
        ],
        dim=-1,
    )
    return (local.abs() / (boxes.sizes.double() / 2)).amax(dim=-1)


def moved(matrix, points):
    return points @ matrix[:3, :3].T + matrix[:3, 3]


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    names=st.lists(st.sampled_from(sorted(TRANSFORMS)), min_size=1, max_size=4),
)
def test_points_boxes_and_matrix_agree(seed, names):
    before = scene(seed)
    pipeline = Pipeline([TRANSFORMS[name] for name in names])
    after = pipeline.apply(before, np.random.default_rng(seed))

    expected = moved(after.augmentation, before.points[:, :3].double())
    torch.testing.assert_close(after.points[:, :3].double(), expected, atol=2e-4, rtol=1e-5)
    assert torch.equal(after.points[:, 3:], before.points[:, 3:])

    centers = moved(after.augmentation, before.targets.boxes.centers.double())
    torch.testing.assert_close(after.targets.boxes.centers.double(), centers, atol=2e-4, rtol=1e-5)
    # points stay as deep inside, or as far outside, as they were
    torch.testing.assert_close(
        inside(after.points, after.targets.boxes),
        inside(before.points, before.targets.boxes),
        atol=1e-3,
        rtol=1e-3,
    )
    # a heading is a direction: it turns like the offset of two points
    flat = torch.zeros(len(before.targets), 3, dtype=torch.float64)
    flat[:, 0], flat[:, 1] = before.targets.boxes.yaws.cos(), before.targets.boxes.yaws.sin()
    turned = flat @ after.augmentation[:3, :3].T
    yaws = torch.atan2(turned[:, 1], turned[:, 0])
    difference = after.targets.boxes.yaws.double() - yaws
    torch.testing.assert_close(
        torch.remainder(difference + math.pi, 2 * math.pi),
        torch.full_like(difference, math.pi),
        atol=1e-4,
        rtol=0,
    )
    # so does a velocity, which scales too
    flat[:, :2] = before.targets.boxes.velocities
    torch.testing.assert_close(
        after.targets.boxes.velocities.double(),
        (flat @ after.augmentation[:3, :3].T)[:, :2],
        atol=1e-4,
        rtol=1e-5,
    )
    assert torch.equal(after.targets.labels, before.targets.labels)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(TRANSFORMS)))
def test_input_stays_as_it_is(seed, name):
    sample, copy = scene(seed), scene(seed)
    TRANSFORMS[name](sample, np.random.default_rng(seed))
    assert torch.equal(sample.points, copy.points)
    assert torch.equal(sample.targets.boxes.tensor, copy.targets.boxes.tensor)
    assert torch.equal(sample.augmentation, copy.augmentation)


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_empty_and_unannotated_frames(name):
    rng = np.random.default_rng(0)
    empty = TRANSFORMS[name](scene(0, num_points=0, num_boxes=0), rng)
    assert empty.points.shape == (0, 5)
    assert len(empty.targets) == 0
    bare = Sample("frame", torch.rand(3, 5), torch.eye(4, dtype=torch.float64))
    assert TRANSFORMS[name](bare, rng).targets is None


def test_unknown_velocity_stays_unknown():
    sample = scene(0)
    sample.targets.boxes.tensor[2, 7:] = float("nan")
    for transform in TRANSFORMS.values():
        sample = transform(sample, np.random.default_rng(0))
    unknown = sample.targets.boxes.velocities.isnan()
    assert unknown[2].all()
    assert unknown.sum() == 2


def test_flips_by_hand():
    sample = Sample(
        "frame",
        torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]),
        torch.eye(4, dtype=torch.float64),
        Targets(
            Boxes3D(torch.tensor([[1.0, 2.0, 3.0, 4.0, 2.0, 1.0, 0.3, 5.0, 6.0]])),
            torch.zeros(1, dtype=torch.int64),
            torch.ones(1, dtype=torch.int64),
        ),
    )
    rng = np.random.default_rng(0)
    at_x = TRANSFORMS["flip_x"](sample, rng)
    assert at_x.points[0].tolist() == [1, -2, 3, 4, 5]
    np.testing.assert_allclose(
        at_x.targets.boxes.tensor[0], [1, -2, 3, 4, 2, 1, -0.3, 5, -6], rtol=1e-6
    )
    at_y = TRANSFORMS["flip_y"](sample, rng)
    assert at_y.points[0].tolist() == [-1, 2, 3, 4, 5]
    np.testing.assert_allclose(
        at_y.targets.boxes.tensor[0], [-1, 2, 3, 4, 2, 1, -0.3 - math.pi, -5, 6], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("transform", "measure", "low", "high", "mean", "std"),
    [
        (RandomRotate(), lambda m: math.atan2(m[1, 0], m[0, 0]), -0.79, 0.79, 0.0, 0.4535),
        (RandomScale(), lambda m: m[0, 0].item(), 0.9, 1.1, 1.0, 0.0577),
        (RandomTranslate(), lambda m: m[2, 3].item(), -3, 3, 0.0, 0.5),
        (RandomFlip(), lambda m: m[0, 0].item(), -1, 1, 0.0, 1.0),
        (RandomFlip(), lambda m: m[1, 1].item(), -1, 1, 0.0, 1.0),
        (RandomFlip(probability=0.0), lambda m: m[1, 1].item(), 1, 1, 1.0, 0.0),
    ],
)
def test_distributions(transform, measure, low, high, mean, std):
    rng = np.random.default_rng(0)
    sample = scene(0, num_points=1, num_boxes=0)
    values = np.array([measure(transform(sample, rng).augmentation) for _ in range(2000)])
    assert low <= values.min() <= values.max() <= high
    assert values.mean() == pytest.approx(mean, abs=4 * std / math.sqrt(2000) + 1e-12)
    assert values.std() == pytest.approx(std, rel=0.1)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: RandomFlip(axes=("z",)), "axes must be out of 'x' and 'y'"),
        (lambda: RandomFlip(probability=1.5), r"probability must lie in \[0, 1\]"),
        (lambda: RandomRotate((1.0, -1.0)), r"angles must be \(lower, upper\)"),
        (lambda: RandomScale((0.0, 1.0)), "factors must be positive"),
        (lambda: RandomTranslate((1.0, -1.0, 0.0)), "three numbers >= 0"),
    ],
)
def test_wrong_arguments(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()
