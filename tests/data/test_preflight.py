from pathlib import Path

import numpy as np
import pytest

from perception3d.data.cloud_file import PointCloud
from perception3d.data.preflight import ground_level, intensity_scale, preflight
from perception3d.errors import UserError

RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)


def street(num_points=6000, ground=-1.8, seed=0):
    """Ground and walls: half of the points lie on the ground, half spread above it."""
    rng = np.random.default_rng(seed)
    points = np.empty((num_points, 4), dtype=np.float32)
    points[:, :2] = rng.uniform(-40, 40, (num_points, 2))
    points[:, 2] = ground + rng.normal(0, 0.03, num_points)
    points[::2, 2] += rng.uniform(0, 4, len(points[::2]))
    points[:, 3] = rng.uniform(0, 200, num_points)
    return points


def cloud(points, num_dropped=0):
    names = ("x", "y", "z", "intensity", "time")[: points.shape[1]]
    return PointCloud(Path("a.bin"), points, names, num_dropped)


def hints(points, num_dropped=0):
    return preflight(cloud(points, num_dropped), RANGE).hints


def test_a_good_cloud_has_no_hints():
    report = preflight(cloud(street()), RANGE)
    assert report.hints == ()
    assert report.num_points == 6000
    assert report.intensity_scale == "0..255"
    assert report.share_in_range == 1.0
    assert report.ground == pytest.approx(-1.8, abs=0.05)
    name, low, median, high = report.columns[0]
    assert (name, round(low), round(high)) == ("x", -40, 40)
    assert abs(median) < 3
    text = "\n".join(report.lines())
    assert "sensor 1.8" in text
    assert "100.0 % of the points" in text


def test_share_counts_the_half_open_box():
    points = np.zeros((4, 4), dtype=np.float32)
    points[:, 0] = [-54.0, 53.9, 54.0, 0.0]
    points[3, 2] = 3.0
    assert preflight(cloud(points), RANGE).share_in_range == 0.5


def test_millimetres_are_suspected():
    points = street()
    points[:, :3] *= 1000
    points[:20, :3] = 1.0
    hint = hints(points)[0]
    assert hint.startswith("0.3 % of the points lie in the model's range")
    assert "are the units metres" in hint


def test_nothing_in_range_is_an_error_of_one_line():
    points = street()
    points[:, 0] += 500_000
    with pytest.raises(UserError) as caught:
        preflight(cloud(points), RANGE)
    text = str(caught.value)
    assert text.startswith("a.bin: none of its 6,000 points lies in the model's range x -54..54")
    assert "units metres" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("top", "scale", "option"),
    [
        (1.0, "0..1", "--intensity-scale 255"),
        (255.0, "0..255", None),
        (40_000.0, "0..65535", "--intensity-scale 0.00389"),
        (0.0, "none", "no intensity"),
    ],
)
def test_intensity_scale(top, scale, option):
    points = street()
    points[:, 3] *= top / points[:, 3].max()
    assert intensity_scale(points) == scale
    found = hints(points)
    assert len(found) == (option is not None)
    assert option is None or option in found[0]


def test_no_intensity_column():
    assert intensity_scale(street()[:, :3]) == "none"
    assert preflight(cloud(street()[:, :3]), RANGE).columns[-1][0] == "z"


@pytest.mark.parametrize("ground", [-1.8, -0.4, 0.0, -4.0])
def test_ground_level(ground):
    assert ground_level(street(ground=ground)) == pytest.approx(ground, abs=0.05)


def test_ground_of_too_few_points_is_unknown():
    assert ground_level(street(120)[:80]) is None
    assert preflight(cloud(street(60)), RANGE).ground is None


@pytest.mark.parametrize(("ground", "offset"), [(0.0, "-1.8"), (-4.0, "2.1")])
def test_unusual_sensor_height_gives_the_shift(ground, offset):
    (hint,) = hints(street(ground=ground))
    assert f"--z-offset {offset}" in hint


def test_following_the_hint_silences_it():
    shifted = cloud(street(ground=0.0)).adjusted(z_offset=-1.84)
    assert preflight(shifted, RANGE).hints == ()


def test_flat_cloud_does_not_divide_by_zero():
    points = street()
    points[:, 2] = -1.8
    assert ground_level(points) == pytest.approx(-1.8, abs=1e-5)


def test_huge_heights_do_not_fill_the_memory():
    points = street()
    points[:, 2] = np.linspace(-1e8, 1e8, len(points))
    assert ground_level(points) is None


def test_few_and_dropped_points_are_mentioned():
    found = hints(street(500), num_dropped=600)
    assert any("only 500 points" in hint for hint in found)
    assert any("--columns N" in hint for hint in found)
    assert "600 with NaN or infinity dropped" in preflight(cloud(street(), 600), RANGE).lines()[0]
