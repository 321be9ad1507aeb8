from dataclasses import replace

import numpy as np
import pytest
import torch

from perception3d.structures import Cameras
from perception3d.visualization.cameras import (
    clip_at_near_plane,
    draw_camera,
    draw_cameras,
    project,
)
from perception3d.visualization.colors import class_color
from perception3d.visualization.layers import LEGEND_STRIP, TITLE_HEIGHT, box_layers

CLASSES = ("car", "pedestrian")
GROUND = 40


def matrices(cameras):
    return cameras.lidar_to_camera[0].double().numpy(), cameras.intrinsics[0].double().numpy()


def drawn(sample, detections=None, **settings):
    layers = box_layers(sample, CLASSES, detections)
    return draw_camera(sample.cameras, 0, layers, **settings)


def untouched(image):
    """All of the picture but the camera's name."""
    return (image[40:] == GROUND).all()


def test_project_a_known_point(front_camera):
    points = np.array([[0.0, 10.0, 0.0], [5.0, 10.0, 2.0], [0.0, -10.0, 0.0]])
    pixels, depth = project(points, *matrices(front_camera))
    np.testing.assert_allclose(pixels[:2], [[100, 50], [150, 30]])
    assert np.isnan(pixels[2]).all()
    np.testing.assert_allclose(depth, [10, 10, -10])


def test_clip_cuts_at_the_near_plane():
    lines = np.array(
        [
            [[0, 0, 4.0], [0, 8, 2.0]],  # in front
            [[0, 0, 2.0], [4, 0, -2.0]],  # crosses
            [[4, 0, -2.0], [0, 0, 2.0]],  # crosses the other way
            [[0, 0, -1.0], [1, 1, -3.0]],  # behind
            [[0, 0, 1.0], [5, 5, 1.0]],  # along the plane
        ]
    )
    cut, seen = clip_at_near_plane(lines, near=1.0)
    assert seen.tolist() == [True, True, True, False, True]
    np.testing.assert_allclose(cut[0], lines[0])
    np.testing.assert_allclose(cut[1], [[0, 0, 2], [1, 0, 1]])
    np.testing.assert_allclose(cut[2], [[1, 0, 1], [0, 0, 2]])
    np.testing.assert_allclose(cut[4], lines[4])


@pytest.mark.parametrize("label", [0, 1])
def test_box_edges_lie_where_they_project(make_sample, front_camera, label):
    # 2 m cube around (0, 11, 0), heading away: rear face at 10 m = 20 pixels wide
    sample = make_sample(
        [[0.0, 11.0, 0.0, 2.0, 2.0, 2.0, np.pi / 2]], [label], cameras=front_camera
    )
    image = drawn(sample)
    color = np.array(class_color(CLASSES[label]))
    for column, row in ((90, 50), (110, 50), (100, 60)):
        window = image[row - 1 : row + 1, column - 1 : column + 1].reshape(-1, 3).astype(int)
        assert np.abs(window - color).max(axis=1).min() < 80, (column, row)
    assert (image[50, 60] == GROUND).all()
    assert (image[75, 100] == GROUND).all()


def test_front_face_is_shaded(make_sample, front_camera):
    away = make_sample([[0.0, 11.0, 0.0, 2.0, 6.0, 2.0, np.pi / 2]], cameras=front_camera)
    aside = make_sample([[0.0, 11.0, 0.0, 6.0, 2.0, 2.0, 0.0]], cameras=front_camera)
    assert (drawn(away)[50, 100] != GROUND).any()  # looks through the front face
    assert (drawn(aside)[50, 100] == GROUND).all()  # front face on the right


def test_box_behind_the_camera_draws_nothing(make_sample, front_camera):
    sample = make_sample([[0.0, -11.0, 0.0, 2.0, 2.0, 2.0, 0.0]], cameras=front_camera)
    assert untouched(drawn(sample))


@pytest.mark.parametrize("x", [-60.0, 60.0])
def test_box_beside_the_picture_draws_nothing(make_sample, front_camera, make_detections, x):
    box = [x, 10.0, 0.0, 2.0, 2.0, 2.0, 0.0]
    sample = make_sample([box], cameras=front_camera)
    assert untouched(drawn(sample))
    assert untouched(drawn(make_sample(cameras=front_camera), make_detections([box])))


def test_box_around_the_camera_is_cut_not_mirrored(make_sample, front_camera, make_detections):
    # The bottom edges run from 6 m behind to 6 m ahead at x = +-1, z = -1: pixels that run
    # from the lower corners towards (100 +- 100/6, 50 + 100/6).
    box = [0.0, 0.0, 0.0, 12.0, 2.0, 2.0, np.pi / 2]
    image = drawn(make_sample([box], cameras=front_camera))
    color = np.array(class_color("car"))
    at_two_metres = image[98:100, 148:152].reshape(-1, 3).astype(int)
    assert np.abs(at_two_metres - color).max(axis=1).min() < 80
    assert (image[97, 100] == GROUND).all()  # a mirrored edge would cross here
    dashed = drawn(make_sample([box], cameras=front_camera), make_detections([]))
    assert not untouched(dashed)


def test_score_label_stands_above_the_box(make_sample, front_camera, make_detections):
    box = [0.0, 11.0, -1.0, 2.0, 2.0, 2.0, np.pi / 2]
    sample = make_sample(cameras=front_camera)
    low = drawn(sample, make_detections([box], scores=[0.11]))
    high = drawn(sample, make_detections([box], scores=[0.88]))
    rows, columns = np.nonzero((low != high).any(axis=2))
    assert rows.min() >= 30
    assert rows.max() <= 50
    assert columns.min() >= 85
    assert columns.max() <= 125


def test_scaled_picture_keeps_the_place(make_sample, front_camera):
    sample = make_sample([[0.0, 11.0, 0.0, 2.0, 2.0, 2.0, np.pi / 2]], cameras=front_camera)
    image = drawn(sample, width=400)
    assert image.shape == (200, 400, 3)
    color = np.array(class_color("car"))
    assert np.abs(image[99:101, 179:181].reshape(-1, 3).astype(int) - color).max(axis=1).min() < 80


def six(front_camera):
    names = ("CAM_BACK", "CAM_FRONT", "CAM_FRONT_LEFT", "X", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
    images = torch.stack([torch.full((3, 100, 200), 30 * (n + 1)) for n in range(6)]).byte()
    return Cameras(
        names,
        images,
        front_camera.lidar_to_camera.repeat(6, 1, 1),
        front_camera.intrinsics.repeat(6, 1, 1),
    )


def test_mosaic_places_front_above_back(make_sample, front_camera):
    sample = make_sample(cameras=six(front_camera))
    image = draw_cameras(sample, CLASSES, width=600)
    assert image.shape == (TITLE_HEIGHT + 200 + LEGEND_STRIP, 600, 3)
    # front left, front, "X" (no known place: by its number) above; back ... below
    greys = [image[TITLE_HEIGHT + 70 + 100 * r, 100 + 200 * c, 0] for r in (0, 1) for c in range(3)]
    assert greys[:2] == [90, 60]
    assert sorted(greys[2:]) == [30, 120, 150, 180]
    legend = image[-LEGEND_STRIP:].reshape(-1, 3).tolist()
    assert all(list(class_color(name)) in legend for name in CLASSES)


def test_mosaic_undoes_the_augmentation(make_sample, front_camera):
    box = [0.0, 11.0, 0.0, 2.0, 2.0, 2.0, np.pi / 2]
    plain = make_sample([box], cameras=front_camera)
    turned = replace(
        plain,
        targets=plain.targets.with_boxes(plain.targets.boxes.rotated(0.7)),
        augmentation=torch.tensor(
            [
                [np.cos(0.7), -np.sin(0.7), 0, 0],
                [np.sin(0.7), np.cos(0.7), 0, 0],
                [0, 0, 1, 0],
                [0, 0, 0, 1],
            ]
        ).double(),
    )
    first = draw_cameras(plain, CLASSES, width=200).astype(int)
    second = draw_cameras(turned, CLASSES, width=200).astype(int)
    assert (np.abs(first - second) > 8).mean() < 0.01
    bare = draw_cameras(make_sample([], cameras=front_camera), CLASSES, width=200).astype(int)
    assert (np.abs(first - bare) > 8).mean() > 0.01


def test_normalised_images_are_stretched(make_sample, front_camera):
    images = torch.linspace(-2, 2, 200).expand(1, 3, 100, 200).contiguous()
    cameras = replace(front_camera, images=images)
    image = drawn(make_sample(cameras=cameras))
    assert image[80, 0, 0] == 0
    assert image[80, 199, 0] == 255


def test_no_cameras_is_an_error(make_sample):
    with pytest.raises(ValueError, match="frame-1 has no cameras"):
        draw_cameras(make_sample(), CLASSES)
