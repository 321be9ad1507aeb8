"""Pictures from few rays."""

import numpy as np
import pytest

from perception3d.simulation.camera import CameraRig
from perception3d.simulation.refinement import refined_picture
from perception3d.simulation.relief import Relief


def painter(faces, picture, asked):
    """Paint from known pictures, and count the pixels asked for."""

    def paint(pixels):
        asked.extend(pixels.tolist())
        return picture.reshape(-1, 3)[pixels], faces.ravel()[pixels]

    return paint


@pytest.mark.parametrize("size", [(16, 12), (17, 12), (16, 13), (17, 13), (2, 2), (1, 1), (3, 1)])
def test_plain_faces_come_out_exact_from_few_pixels(size):
    width, height = size
    faces = np.zeros((height, width), dtype=np.int64)
    faces[:, width // 3 :] = 1
    faces[height // 2 :, width // 3 :] = 2
    palette = np.array([[10, 200, 30], [250, 0, 90], [77, 78, 79]], dtype=np.uint8)
    picture, asked = palette[faces], []
    assert (refined_picture(width, height, painter(faces, picture, asked)) == picture).all()
    assert len(set(asked)) == len(asked) <= width * height
    if min(size) > 10:
        assert len(asked) < 0.7 * width * height


def test_shading_inside_a_face_is_averaged():
    faces = np.zeros((8, 8), dtype=np.int64)
    level = (10 * np.arange(8)[:, None] + 6 * np.arange(8)).astype(np.uint8)
    picture = np.repeat(level[..., None], 3, axis=2)
    assert (refined_picture(8, 8, painter(faces, picture, [])) == picture).all()


def test_street_scene_looks_like_the_one_with_all_rays(synthetic):
    world, caster = synthetic.worlds[0], synthetic.casters[0]
    width, height = 352, 128
    rig = CameraRig(world, caster, Relief(world), (width, height), np.random.default_rng(0))
    times = [0.3] * 6
    for number, picture in enumerate(rig.shoot(times)):
        hits, rays = rig.look(rig.view(number, 0.3), np.arange(width * height))
        full = rig._shader.paint(hits, rays, rig._shader.shadows(0.3)).reshape(picture.shape)
        difference = np.abs(picture.astype(int) - full).max(axis=2)
        # The grain of the ground and edges of shadows and windows are smoothed a little.
        assert difference.mean() < 2.5
        assert np.mean(difference > 25) < 0.02
