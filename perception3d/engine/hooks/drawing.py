"""Pictures of detections while a test runs."""

from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from perception3d.structures import Batch, Detections, Sample


class DrawHook(Hook):  # type: ignore[misc]  # mmengine ships no types
    """Draw the first frames of a test from above, and on their camera images where there are any.

    Args:
        folder: gets TOKEN_bev.png, and TOKEN_cameras.png.
        max_frames: frames drawn, of each process.
        score_threshold: boxes below it are left out.
    """

    def __init__(self, folder: str, max_frames: int = 20, score_threshold: float = 0.3) -> None:
        if max_frames < 1:
            raise ValueError(f"max_frames must be >= 1, got {max_frames}")
        self.folder = Path(folder)
        self.left = max_frames
        self.score_threshold = score_threshold

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw the frames of a batch."""
        from perception3d.visualization.pictures import PictureOptions, save_pictures

        batch: Batch = data_batch["batch"]
        classes = runner.test_dataloader.dataset.metainfo["classes"]
        for frame, output in enumerate(outputs[: self.left]):
            self.left -= 1
            found: Detections = output["detections"]
            save_pictures(
                sample_of(batch, frame),
                classes,
                self.folder,
                found.take(found.scores >= self.score_threshold),
                PictureOptions(scene=False),
            )


def sample_of(batch: Batch, frame: int) -> Sample:
    """Return one frame of a batch."""
    points = batch.points[batch.frame_of_point == frame]
    return Sample(
        token=batch.tokens[frame],
        points=points,
        lidar_to_global=batch.lidar_to_global[frame],
        targets=None if batch.targets is None else batch.targets[frame],
        cameras=None if batch.cameras is None else batch.cameras[frame],
        augmentation=batch.augmentation[frame],
    )
