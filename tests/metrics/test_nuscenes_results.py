"""Detections in the result format: values, checks, submission files."""

import json
import math

import numpy as np
import pytest
import torch
from made_detections import entry, evaluate, noisy
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import load_prediction
from nuscenes.eval.detection.data_classes import DetectionBox
from pyquaternion import Quaternion
from tiny_nuscenes import TinyNuScenes

from perception3d.data.nuscenes import NuScenesDataset
from perception3d.data.nuscenes_info import build_info_files
from perception3d.data.nuscenes_tables import TableOptions
from perception3d.errors import UserError
from perception3d.metrics import nuscenes_results
from perception3d.metrics.nuscenes import NuScenesMetric, flat_figures
from perception3d.metrics.nuscenes_results import attribute_of, result_boxes, validate_results
from perception3d.structures import Boxes3D, Detections


class TestResults:
    def test_global_boxes(self, dataset):
        """Back in the LiDAR frame the boxes are those that went in, upright again."""
        sample = dataset[1]
        detections = noisy(sample)
        pose = sample.lidar_to_global.numpy()
        boxes = result_boxes(sample.token, detections, pose, dataset.classes)
        assert len(boxes) == len(detections)
        for box, row, label in zip(boxes, detections.boxes.tensor, detections.labels, strict=True):
            center = pose[:3, :3].T @ (np.array(box["translation"]) - pose[:3, 3])
            np.testing.assert_allclose(center, row[:3], atol=1e-4)
            assert box["size"] == row[[4, 3, 5]].double().tolist()
            turn = pose[:3, :3].T @ Quaternion(box["rotation"]).rotation_matrix
            upright = Quaternion(axis=[0, 0, 1], angle=row[6].item()).rotation_matrix
            np.testing.assert_allclose(turn, upright, atol=1e-6)
            velocity = pose[:3, :3] @ np.array([*row[7:].tolist(), 0.0])
            np.testing.assert_allclose(box["velocity"], velocity[:2], atol=1e-5)
            assert box["detection_name"] == dataset.classes[label]
            assert type(box["detection_score"]) is float

    @pytest.mark.parametrize(
        ("name", "speed", "attribute"),
        [
            ("car", 0.3, "vehicle.moving"),
            ("car", 0.2, "vehicle.parked"),
            ("bus", 0.0, "vehicle.stopped"),
            ("trailer", 5.0, "vehicle.moving"),
            ("bicycle", 1.0, "cycle.with_rider"),
            ("motorcycle", 0.0, "cycle.without_rider"),
            ("pedestrian", 0.0, "pedestrian.standing"),
            ("pedestrian", 1.0, "pedestrian.moving"),
            ("traffic_cone", 9.0, ""),
            ("barrier", 0.0, ""),
        ],
    )
    def test_attributes(self, name, speed, attribute):
        assert attribute_of(name, speed) == attribute

    def test_best_500_and_finite(self, dataset, caplog, tmp_path):
        sample = dataset[0]
        boxes = torch.ones(700, 9)
        boxes[3, 0], boxes[4, 8] = float("nan"), float("nan")
        scores = torch.linspace(0, 0.9, 700)
        scores[5] = float("inf")
        many = Detections(Boxes3D(boxes), scores, torch.zeros(700, dtype=torch.int64))
        metric = NuScenesMetric("infos", out_dir=str(tmp_path))
        metric.dataset_meta = dataset.metainfo
        metric.process(None, [entry(sample, many)])
        assert "dropped 2 of 700 boxes" in caplog.text
        metric.evaluate(1)
        written = json.loads((tmp_path / "results_nusc.json").read_text())
        found = [box["detection_score"] for box in written["results"][sample.token]]
        assert found == pytest.approx(scores[-500:].flip(0).tolist())

    def test_label_beyond_the_classes(self):
        boxes = Boxes3D(torch.ones(2, 9))
        two = Detections(boxes, torch.ones(2), torch.tensor([0, 3]))
        with pytest.raises(UserError, match=r"predicts label 3, the data set has 2 classes \(a, b"):
            result_boxes("a", two, np.eye(4), ["a", "b"])

    def test_unknown_velocity_is_written_as_standing(self, dataset):
        boxes = torch.ones(1, 9)
        boxes[0, 7:] = float("nan")
        one = Detections(Boxes3D(boxes), torch.ones(1), torch.zeros(1, dtype=torch.int64))
        (box,) = result_boxes("a", one, np.eye(4), dataset.classes)
        assert box["velocity"] == [0.0, 0.0]
        assert box["attribute_name"] == "vehicle.parked"

    def box(self, **changes):
        return {
            "sample_token": "a",
            "translation": [1.0, 2.0, 3.0],
            "size": [1.0, 2.0, 3.0],
            "rotation": [1.0, 0.0, 0.0, 0.0],
            "velocity": [0.0, 0.0],
            "detection_name": "car",
            "detection_score": 0.5,
            "attribute_name": "vehicle.parked",
            **changes,
        }

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"translation": [1.0, 2.0]}, "translation must be 3 numbers"),
            ({"rotation": [1.0, 0.0, 0.0, math.nan]}, "rotation must be finite"),
            ({"velocity": None}, "velocity must be 2 numbers"),
            ({"size": [1.0, 0.0, 1.0]}, "size must be positive"),
            ({"detection_score": np.float32(0.5)}, "detection_score must be a finite float"),
            ({"detection_score": 1}, "detection_score must be a finite float"),
            ({"detection_name": "tram"}, "detection_name must be one of 'car'.* got 'tram'"),
            ({"attribute_name": "fast"}, "attribute_name must be one of"),
            ({"sample_token": "b"}, "sample_token must be one of 'a', got 'b'"),
        ],
    )
    def test_wrong_box(self, changes, problem):
        flags = dict.fromkeys(nuscenes_results.META_FLAGS, False)
        document = {"meta": flags, "results": {"a": [self.box(), self.box(**changes)]}}
        with pytest.raises(UserError, match=f"box 1 of sample a: {problem}"):
            validate_results(document)
        document["results"]["a"].pop()
        validate_results(document, ["a"])

    def test_wrong_document(self):
        flags = dict.fromkeys(nuscenes_results.META_FLAGS, False)
        for document, problem in (
            ({"results": {}}, "meta and results"),
            ({"meta": {}, "results": {}}, "meta.use_camera must be true or false"),
            ({"meta": flags, "results": {"a": [self.box()] * 501}}, "501 boxes, at most 500"),
        ):
            with pytest.raises(UserError, match=problem):
                validate_results(document)
        with pytest.raises(UserError, match=r"they hold foreign 1, e\.g\. a"):
            validate_results({"meta": flags, "results": {"a": []}}, [])


class TestSubmission:
    def test_format_only(self, dataset, tmp_path):
        entries = [entry(dataset[i], noisy(dataset[i], i)) for i in range(len(dataset))]
        figures, metric = evaluate(
            dataset, entries, format_only=True, out_dir=str(tmp_path / "out"), use_camera=True
        )
        assert figures == {}
        assert metric.summary is None
        (path,) = (tmp_path / "out").iterdir()
        loaded, meta = load_prediction(str(path), 500, DetectionBox)  # the devkit's own checks
        assert isinstance(loaded, EvalBoxes)
        assert set(loaded.sample_tokens) == {item["token"] for item in entries}
        assert meta["use_camera"]
        assert meta["use_lidar"]

    def test_incomplete_submission(self, dataset, tmp_path):
        entries = [entry(dataset[0], noisy(dataset[0]))]
        with pytest.raises(UserError, match="they lack 4"):
            evaluate(dataset, entries, format_only=True, out_dir=str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_files_beside_the_figures(self, dataset, tmp_path):
        entries = [entry(dataset[i], noisy(dataset[i], i)) for i in range(len(dataset))]
        figures, metric = evaluate(dataset, entries, out_dir=str(tmp_path))
        summary = json.loads((tmp_path / "metrics_summary.json").read_text())
        assert summary == metric.summary
        assert figures == {f"nuscenes/{k}": v for k, v in flat_figures(summary).items()}
        assert (tmp_path / "results_nusc.json").is_file()

    def test_test_split_cannot_be_evaluated(self, tmp_path):
        data = TinyNuScenes(
            tmp_path, version="v1.0-test", scenes={"scene-0077": 1}, annotated=False
        ).write()
        (summary,) = build_info_files(TableOptions(tmp_path, data.version), tmp_path)
        dataset = NuScenesDataset(str(tmp_path), str(summary.path), test_mode=True)
        boxes = Detections(Boxes3D.empty(), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        entries = [entry(dataset[0], boxes)]
        for route in ("tables", "infos"):
            with pytest.raises(UserError, match="no annotations .* --format-only --out DIR"):
                evaluate(dataset, entries, ground_truth=route)
        evaluate(dataset, entries, format_only=True, out_dir=str(tmp_path / "out"))
