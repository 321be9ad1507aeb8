"""A small synthetic data set and the worlds behind it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from perception3d.simulation.casting import Caster
from perception3d.simulation.map_mask import map_frame
from perception3d.simulation.settings import Settings
from perception3d.simulation.tables import token
from perception3d.simulation.world import build_world

SEED = 5


def quiet(items, total, text):
    return items


def settings(out_dir, **changes):
    values = {
        "scenes": 2,
        "frames_per_scene": 3,
        "val_scenes": 1,
        "seed": SEED,
        "image_size": (352, 128),
        "sweeps_per_keyframe": 3,
        **changes,
    }
    return Settings(out_dir, **values)


@dataclass
class SyntheticData:
    """The generated data set and the worlds behind it."""

    root: Path
    version: str = "v1.0-synthetic"

    @cached_property
    def tables(self):
        """The devkit's view of it."""
        from nuscenes import NuScenes

        return NuScenes(self.version, str(self.root), verbose=False)

    @cached_property
    def worlds(self):
        """The scenes, made up again from the seed."""
        duration = settings(self.root).duration
        streams = [np.random.SeedSequence([SEED, scene]).spawn(4) for scene in range(2)]
        return [build_world(np.random.default_rng(stream[0]), duration) for stream in streams]

    @cached_property
    def casters(self):
        return [Caster(world) for world in self.worlds]

    def rows(self, name):
        return json.loads((self.root / self.version / f"{name}.json").read_text())

    def scene_of(self, sample):
        """Number of the scene of a sample record."""
        return int(self.tables.get("scene", sample["scene_token"])["name"][-4:]) - 1

    def time_of(self, record):
        """Time in s since the first key frame of the scene of a sample or its annotation."""
        sample = self.tables.get("sample", record.get("sample_token", record["token"]))
        scene = self.tables.get("scene", sample["scene_token"])
        first = self.tables.get("sample", scene["first_sample_token"])
        return (sample["timestamp"] - first["timestamp"]) * 1e-6

    def offset(self, scene):
        """Shift (3,) from the local to the global frame."""
        return map_frame(self.worlds[scene])[0]

    def actor_of(self, annotation):
        """The actor behind an annotation record."""
        sample = self.tables.get("sample", annotation["sample_token"])
        scene = self.scene_of(sample)
        if not hasattr(self, "_actors"):
            self._actors = {
                token(SEED, number, "instance", row): actor
                for number, world in enumerate(self.worlds)
                for row, actor in enumerate(world.actors)
            }
        return scene, self._actors[annotation["instance_token"]]
