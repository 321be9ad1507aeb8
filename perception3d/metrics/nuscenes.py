"""NuScenesMetric: detections of a run -> submission file and official figures."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from perception3d.data.info_file import InfoFile
from perception3d.errors import UserError
from perception3d.metrics.nuscenes_results import (
    Results,
    best,
    check_tokens,
    finite,
    result_boxes,
    result_document,
    write_json,
)
from perception3d.structures import Boxes3D, Detections

logger = logging.getLogger(__name__)

ERRORS = {
    "trans_err": "ATE",
    "scale_err": "ASE",
    "orient_err": "AOE",
    "vel_err": "AVE",
    "attr_err": "AAE",
}
GROUND_TRUTHS = ("tables", "infos")


class NuScenesMetric(BaseMetric):  # type: ignore[misc]  # mmengine ships no types
    """nuScenes detection figures of what `TrainableModel` predicts.

    Data root, version, split and info file come from the data set unless they are given.

    Args:
        ground_truth: "tables": the devkit's evaluator on the tables of the whole split; "infos":
            the same metric on the info file, which knows velocities where the tables are too
            short for them, and on the predicted frames only.
        format_only: write the submission and evaluate nothing (test split); needs out_dir.
        out_dir: folder for results_nusc.json and metrics_summary.json; None: they are not kept.
        use_camera: say in the submission that images were used.
        data_root, version, split, ann_file: instead of those of the data set.

    Raises:
        UserError: unknown ground_truth, format_only without out_dir.
    """

    default_prefix = "nuscenes"

    def __init__(
        self,
        ground_truth: str = "tables",
        *,
        format_only: bool = False,
        out_dir: str | None = None,
        use_camera: bool = False,
        data_root: str | None = None,
        version: str | None = None,
        split: str | None = None,
        ann_file: str | None = None,
    ) -> None:
        # "gpu" means: through the process group, gloo as well as nccl, without temporary files
        super().__init__(collect_device="gpu")
        if ground_truth not in GROUND_TRUTHS:
            raise UserError(f"ground_truth must be 'tables' or 'infos', got {ground_truth!r}")
        if format_only and out_dir is None:
            raise UserError("format_only writes files: give out_dir (--format-only --out DIR)")
        self.ground_truth = ground_truth
        self.format_only = format_only
        self.out_dir = None if out_dir is None else Path(out_dir)
        self.use_camera = use_camera
        self.summary: dict[str, Any] | None = None
        self._given = {
            "data_root": data_root,
            "version": version,
            "split": split,
            "ann_file": ann_file,
        }

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:  # noqa: ANN401  # mmengine's signature
        """Keep the detections of a batch, as plain arrays.

        Args:
            data_batch: what the loader gave; not looked at.
            data_samples: per frame {"token", "detections" in the LiDAR frame, "lidar_to_global"
                (4, 4), "augmentation" (4, 4)}.

        Raises:
            UserError: a frame was augmented, so its boxes are not in the LiDAR frame.
        """
        for entry in data_samples:
            augmentation = entry["augmentation"]
            if not torch.equal(augmentation, torch.eye(4, dtype=augmentation.dtype)):
                raise UserError(
                    f"frame {entry['token']} was augmented before evaluation; take random "
                    "transforms out of the test pipeline"
                )
            found: Detections = entry["detections"].to("cpu")
            sound = finite(found)
            if len(sound) < len(found):
                logger.warning(
                    "frame %s: dropped %d of %d boxes with NaN or infinity",
                    entry["token"],
                    len(found) - len(sound),
                    len(found),
                )
            sound = best(sound)
            self.results.append(
                {
                    "token": entry["token"],
                    "boxes": sound.boxes.tensor.float().numpy(),
                    "scores": sound.scores.float().numpy(),
                    "labels": sound.labels.numpy(),
                    "lidar_to_global": entry["lidar_to_global"].double().cpu().numpy(),
                }
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Write the submission and, unless format_only, evaluate it.

        Args:
            results: what `process` kept, of all processes; frames may repeat.

        Returns:
            mAP, NDS, mATE, mASE, mAOE, mAVE, mAAE; mAP_present, the mean over the classes that
            have ground truth at all (no official figure); per class `car/AP`, `car/ATE`, ...;
            undefined errors are left out.  `self.summary` holds all figures.
        """
        classes = self._setting("classes")
        boxes: Results = {
            entry["token"]: result_boxes(
                entry["token"],
                Detections(
                    Boxes3D(torch.from_numpy(entry["boxes"])),
                    torch.from_numpy(entry["scores"]),
                    torch.from_numpy(entry["labels"]),
                ),
                entry["lidar_to_global"],
                classes,
            )
            for entry in results
        }
        if self.format_only:
            check_tokens(boxes, InfoFile(self._setting("ann_file")).tokens())
        document = result_document(boxes, use_camera=self.use_camera)
        if self.out_dir is not None:
            path = self.out_dir / "results_nusc.json"
            write_json(path, document)
            logger.info("wrote %s: %d samples", path, len(boxes))
        if self.format_only:
            return {}
        # The devkit takes a second to import, and a training without validation never needs it.
        from perception3d.metrics.nuscenes_infos import info_metrics
        from perception3d.metrics.nuscenes_official import load_tables, official_metrics

        if self.ground_truth == "infos":
            self.summary = info_metrics(boxes, Path(self._setting("ann_file")))
        else:
            tables = load_tables(Path(self._setting("data_root")), self._setting("version"))
            self.summary = official_metrics(document, tables, self._setting("split"))
        if self.out_dir is not None:
            write_json(self.out_dir / "metrics_summary.json", self.summary)
        return flat_figures(self.summary)

    def _setting(self, name: str) -> Any:  # noqa: ANN401  # names and paths, or the class list
        value = self._given.get(name)
        if value is None:
            value = (self.dataset_meta or {}).get(name)
        if value is None:
            raise UserError(
                f"NuScenesMetric: {name} is not known; the data set does not tell it, so give "
                f"{name} in the evaluator's config"
            )
        return value


def flat_figures(summary: dict[str, Any]) -> dict[str, float]:
    """Return the figures under the names that are usual in print, undefined ones left out."""
    figures = {"mAP": summary["mean_ap"], "NDS": summary["nd_score"]}
    for error, short in ERRORS.items():
        figures[f"m{short}"] = summary["tp_errors"][error]
    present = [
        summary["mean_dist_aps"][name]
        for name, count in summary["num_ground_truth"].items()
        if count
    ]
    figures["mAP_present"] = sum(present) / len(present) if present else 0.0
    for name, precision in summary["mean_dist_aps"].items():
        figures[f"{name}/AP"] = precision
        for error, short in ERRORS.items():
            figures[f"{name}/{short}"] = summary["label_tp_errors"][name][error]
    return {name: value for name, value in figures.items() if value is not None}
