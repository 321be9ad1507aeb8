import numpy as np
import pytest
import torch

from perception3d.visualization.bev import PANEL_WIDTH, BevView, draw_bev
from perception3d.visualization.colors import BACKGROUND, GROUND_TRUTH, class_color, palette
from perception3d.visualization.layers import LEGEND_ROW, TITLE_HEIGHT

CLASSES = ("car", "pedestrian")
VIEW = BevView(reach=20.0, side=400)  # 10 pixels a metre, the sensor in the middle


def pixel(image, x, y, view=VIEW):
    column, row = view.to_pixels(np.array([x, y]))
    return image[int(row), int(column)].astype(int)


def near(color, wanted, tolerance=40):
    return np.abs(np.asarray(color, int) - np.asarray(wanted, int)).max() <= tolerance


def drawn_at(image, x, y, color):
    """A thin smooth line covers at least half of one of the pixels around the place."""
    column, row = np.round(VIEW.to_pixels(np.array([x, y]))).astype(int)
    window = image[row - 1 : row + 1, column - 1 : column + 1].reshape(-1, 3).astype(float)
    span = np.asarray(color, float) - BACKGROUND
    cover = (window - BACKGROUND) @ span / (span @ span)
    rest = np.abs(window - BACKGROUND - cover[:, None] * span).max(axis=1)
    return bool(((cover > 0.5) & (rest < 25)).any())


def empty_bev(make_sample, classes=CLASSES, **view):
    return draw_bev(make_sample(), classes, view=BevView(reach=20.0, side=400, **view))


@pytest.mark.parametrize(
    ("forward", "xy", "wanted"),
    [
        ("y", (0.0, 0.0), (200.0, 200.0)),
        ("y", (10.0, 5.0), (300.0, 150.0)),  # x right, y up
        ("x", (10.0, 5.0), (150.0, 100.0)),  # x up, y left
    ],
)
def test_to_pixels(forward, xy, wanted):
    column, row = BevView(reach=20.0, side=400, forward=forward).to_pixels(np.array(xy))
    assert (column, row - TITLE_HEIGHT) == wanted


def test_picture_size_and_type(make_sample):
    image = empty_bev(make_sample)
    assert image.shape == (400 + TITLE_HEIGHT, 400 + PANEL_WIDTH, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("label", [0, 1])
def test_box_outline_has_its_class_color_where_it_lies(make_sample, label):
    sample = make_sample([[5.0, 10.0, 0, 4.0, 2.0, 1.5, 0.0]], [label])
    image = draw_bev(sample, CLASSES, view=VIEW)
    color = palette(CLASSES)[label]
    for x, y in ((5.0, 9.0), (5.0, 11.0), (3.0, 10.0), (7.0, 9.5)):
        assert drawn_at(image, x, y, color), (x, y)
    for x, y in ((5.0, 8.0), (5.0, 12.0), (2.0, 10.0), (-5.0, 10.0), (5.0, -10.0)):
        assert near(pixel(image, x, y), pixel(empty_bev(make_sample), x, y), 3), (x, y)


def test_box_turns_with_its_yaw(make_sample):
    sample = make_sample([[5.0, 5.0, 0, 6.0, 2.0, 1.5, np.pi / 2]])
    image = draw_bev(sample, CLASSES, view=VIEW)
    color = class_color("car")
    assert drawn_at(image, 5.0, 2.0, color)  # rear edge, 3 m behind
    assert drawn_at(image, 4.0, 6.0, color)  # left edge
    assert not drawn_at(image, 2.0, 5.0, color)  # front edge of a box that did not turn


@pytest.mark.parametrize(("yaw", "sign"), [(0.0, 1.0), (np.pi, -1.0)])
def test_heading_mark_reaches_beyond_the_front_edge_only(make_sample, yaw, sign):
    sample = make_sample([[5.0, 10.0, 0, 4.0, 2.0, 1.5, yaw]])
    image = draw_bev(sample, CLASSES, view=VIEW)
    color = class_color("car")
    assert drawn_at(image, 5.0 + sign * 2.4, 10.0, color)
    assert not drawn_at(image, 5.0 - sign * 2.4, 10.0, color)
    assert drawn_at(image, 5.0 + sign * 1.0, 10.0, color)
    assert not drawn_at(image, 5.0 - sign * 1.0, 10.0, color)


def test_annotations_beside_detections_are_white_dashes(make_sample, make_detections):
    box = [5.0, 10.0, 0, 6.0, 4.0, 1.5, 0.0]
    image = draw_bev(make_sample([box]), CLASSES, make_detections([]), VIEW)
    places = np.linspace(2.2, 7.8, 57)
    white = np.mean([drawn_at(image, x, 12.0, GROUND_TRUTH) for x in places])
    assert 0.3 < white < 0.9
    assert not any(drawn_at(image, x, 12.0, class_color("car")) for x in places)


def test_score_is_written_beside_a_detection(make_sample, make_detections):
    box = [5.0, 10.0, 0, 4.0, 2.0, 1.5, 0.0]
    sample = make_sample()
    low = draw_bev(sample, CLASSES, make_detections([box], scores=[0.11]), VIEW)
    high = draw_bev(sample, CLASSES, make_detections([box], scores=[0.88]), VIEW)
    column, row = VIEW.to_pixels(np.array([7.0, 11.0])).astype(int)
    differing = np.argwhere((low != high).any(axis=2))
    assert len(differing) > 10
    assert (differing >= [row - 10, column]).all()
    assert (differing <= [row + 10, column + 40]).all()


def test_crowded_scores_leave_the_best(make_sample, make_detections):
    box = [5.0, 10.0, 0, 4.0, 2.0, 1.5, 0.0]
    sample = make_sample()
    both = draw_bev(sample, CLASSES, make_detections([box, box], scores=[0.3, 0.8]), VIEW)
    swapped = draw_bev(sample, CLASSES, make_detections([box, box], scores=[0.8, 0.3]), VIEW)
    assert np.array_equal(both, swapped)


def test_a_point_colors_its_pixel_by_height(make_sample):
    points = torch.tensor([[-5.05, 3.05, -2.0, 9.0], [4.05, -3.05, 2.0, 0.0]])
    image = draw_bev(make_sample(points=points), CLASSES, view=VIEW)
    low, high = pixel(image, -5.05, 3.05), pixel(image, 4.05, -3.05)
    assert low[2] > low[0] + 50  # blue
    assert high[0] > low[0] + 100  # light
    by_intensity = BevView(reach=20.0, side=400, color_by="intensity")
    image = draw_bev(make_sample(points=points), CLASSES, view=by_intensity)
    assert np.array_equal(pixel(image, -5.05, 3.05), high)
    assert np.array_equal(pixel(image, 4.05, -3.05), low)


def test_points_outside_or_not_finite_draw_nothing(make_sample):
    points = torch.tensor([[30.0, 0, 0, 0], [0, -25.0, 0, 0], [float("nan"), 1.0, 0, 0]])
    image = draw_bev(make_sample(points=points, token="t"), CLASSES, view=VIEW)
    empty = draw_bev(make_sample(points=torch.zeros((3, 4)), token="t"), CLASSES, view=VIEW)
    square = np.s_[TITLE_HEIGHT:, :400]
    middle = np.s_[TITLE_HEIGHT + 190 : TITLE_HEIGHT + 210, 190:210]
    image[middle], empty[middle] = 0, 0  # the three points of the other frame lie there
    assert np.array_equal(image[square], empty[square])


def test_range_rings_lie_at_their_radius(make_sample):
    image = empty_bev(make_sample)
    angle = np.linspace(0.3, 1.2, 40)

    def brightness(radius):
        places = [(radius * np.cos(a), radius * np.sin(a)) for a in angle]
        return np.mean([pixel(image, x, y) for x, y in places])

    assert brightness(9.97) > brightness(9.0) + 10
    assert brightness(9.97) > brightness(11.0) + 10


def test_legend_shows_every_class_color_and_count(make_sample):
    # one class whose name has no fixed colour
    classes = ("car", "pedestrian", "hovercraft")
    image = draw_bev(make_sample([]), classes, view=VIEW)
    for row, color in enumerate(palette(classes)):
        y = TITLE_HEIGHT + 10 + LEGEND_ROW * row + LEGEND_ROW // 2
        assert near(image[y, 400 + 10 + 21], color, 2), classes[row]
    counted = draw_bev(make_sample([[5.0, 10.0, 0, 4.0, 2.0, 1.5, 0.0]], [1]), classes, view=VIEW)
    changed = (counted != image).any(axis=2)[TITLE_HEIGHT:, 410:]
    rows = np.flatnonzero(changed.any(axis=1))
    second = 10 + LEGEND_ROW
    assert second <= rows.min()
    assert rows.max() < second + LEGEND_ROW


def test_title_holds_token_and_counts(make_sample):
    first = draw_bev(make_sample(token="a"), CLASSES, view=VIEW)
    other = draw_bev(make_sample(token="b"), CLASSES, view=VIEW)
    assert not np.array_equal(first[:TITLE_HEIGHT, :100], other[:TITLE_HEIGHT, :100])
    assert np.array_equal(first[TITLE_HEIGHT:], other[TITLE_HEIGHT:])
    long = draw_bev(make_sample(token="x" * 500), CLASSES, view=VIEW)
    assert np.array_equal(long[:TITLE_HEIGHT, -90:], first[:TITLE_HEIGHT, -90:])


def test_box_over_the_edge_stays_out_of_title_and_legend(make_sample):
    boxes = [[20.0, 0.0, 0, 6.0, 2.0, 1.5, 0.0], [0.0, 20.0, 0, 2.0, 6.0, 1.5, 0.0]]
    image = draw_bev(make_sample(boxes), CLASSES, view=VIEW)
    assert drawn_at(image, 18.5, 1.0, class_color("car"))
    assert drawn_at(image, 1.0, 19.5, class_color("car"))
    assert (image[TITLE_HEIGHT + 200, 402:440] == BACKGROUND).all()
    assert (image[TITLE_HEIGHT - 3, 180:220] == BACKGROUND).all()


@pytest.mark.parametrize("label", [-1, 7])
def test_unknown_label_and_broken_box_do_not_stop_the_picture(make_sample, label):
    boxes = [[5.0, 10.0, 0, 4.0, 2.0, 1.5, 0.0], [np.nan, 0, 0, 1, 1, 1, 0]]
    image = draw_bev(make_sample(boxes, [label, 0]), CLASSES, view=VIEW)
    edge = pixel(image, 5.0, 9.0)
    assert edge.min() > 100
    assert np.ptp(edge) < 60  # grey


def test_no_classes_no_boxes_no_points(make_sample, make_detections):
    image = draw_bev(make_sample([]), (), make_detections([]), VIEW)
    assert image.shape[0] == 400 + TITLE_HEIGHT


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"reach": 0.0}, "reach"),
        ({"ring_spacing": -1.0}, "ring_spacing"),
        ({"side": 10}, "side"),
        ({"forward": "z"}, "forward"),
    ],
)
def test_bad_view_is_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        BevView(**settings)


def test_bad_point_coloring_is_refused(make_sample):
    view = BevView(color_by="smell")
    with pytest.raises(ValueError, match="color_by must be 'height' or 'intensity', got 'smell'"):
        draw_bev(make_sample(points=torch.zeros((1, 4))), CLASSES, view=view)
