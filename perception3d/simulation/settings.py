"""What the user may choose."""

from dataclasses import dataclass
from pathlib import Path

from perception3d.errors import UserError
from perception3d.simulation.rig import KEY_FRAME_PERIOD, SWEEP_PERIOD

MAX_SWEEPS = round(KEY_FRAME_PERIOD / SWEEP_PERIOD)
IMAGE_CHOICES = ("all", "val", "none")
TRAIN_SPLIT, VAL_SPLIT = "synthetic_train", "synthetic_val"
"""Names in splits.json; "train" and "val" are taken by the devkit's own scene lists."""


@dataclass(frozen=True)
class Settings:
    """A data set to generate.

    Attributes:
        out_dir: data root; must not exist unless `overwrite`.
        scenes: number of scenes.
        frames_per_scene: key frames per scene, 0.5 s apart.
        val_scenes: number of scenes, the last ones, in the validation split.
        seed: source of everything; the same seed gives the same bytes.
        image_size: width, height of the camera images, px.
        images: which scenes get images: "all", "val" or "none".
        occupancy: write semantic occupancy labels.
        sweeps_per_keyframe: LiDAR sweeps per key frame, itself included, 1..10, 50 ms apart.
        version: name of the folder of the tables.
        overwrite: replace `out_dir`.
    """

    out_dir: Path
    scenes: int
    frames_per_scene: int
    val_scenes: int
    seed: int = 0
    image_size: tuple[int, int] = (704, 256)
    images: str = "all"
    occupancy: bool = True
    sweeps_per_keyframe: int = MAX_SWEEPS
    version: str = "v1.0-synthetic"
    overwrite: bool = False

    def check(self) -> None:
        """Raise UserError where a value is out of bounds or `out_dir` is in the way."""
        least = {"scenes": 1, "frames_per_scene": 1, "val_scenes": 0, "seed": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                option = name.replace("_", "-")
                raise UserError(f"--{option} must be at least {value}, got {getattr(self, name)}")
        if self.val_scenes > self.scenes:
            raise UserError(
                f"--val-scenes must be at most --scenes ({self.scenes}), got {self.val_scenes}"
            )
        if not 1 <= self.sweeps_per_keyframe <= MAX_SWEEPS:
            raise UserError(
                f"--sweeps-per-keyframe must be 1 to {MAX_SWEEPS}, got {self.sweeps_per_keyframe}"
            )
        if min(self.image_size) < 16:
            raise UserError(
                "--image-size must be at least 16x16 px, got "
                f"{self.image_size[0]}x{self.image_size[1]}"
            )
        if self.images not in IMAGE_CHOICES:
            raise UserError(f"--images must be one of {IMAGE_CHOICES}, got {self.images!r}")
        self._check_out_dir()

    def _check_out_dir(self) -> None:
        out = self.out_dir
        if not out.exists():
            return
        if not self.overwrite:
            raise UserError(f"{out} exists already; name another folder or --overwrite")
        if not out.is_dir() or (any(out.iterdir()) and not any(out.glob("*/splits.json"))):
            raise UserError(
                f"{out} is no data set of this command, so --overwrite leaves it alone; "
                "name another folder"
            )

    @property
    def duration(self) -> float:
        """Time of the last key frame after the first, s."""
        return (self.frames_per_scene - 1) * KEY_FRAME_PERIOD

    def is_val(self, scene: int) -> bool:
        """Return whether a scene belongs to the validation split."""
        return scene >= self.scenes - self.val_scenes

    def has_images(self, scene: int) -> bool:
        """Return whether a scene gets camera images."""
        return self.images == "all" or (self.images == "val" and self.is_val(scene))

    def digest_fields(self) -> dict[str, object]:
        """Return what the bytes of a scene depend on, apart from its number."""
        return {
            "frames_per_scene": self.frames_per_scene,
            "seed": self.seed,
            "image_size": list(self.image_size),
            "images": self.images,
            "val_scenes": self.val_scenes if self.images == "val" else -1,
            "scenes": self.scenes if self.images == "val" else -1,
            "occupancy": self.occupancy,
            "sweeps_per_keyframe": self.sweeps_per_keyframe,
            "version": self.version,
        }
