"""NuScenesMetric: submission, official figures, both routes, several processes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_detections import entry, evaluate, noisy
from tiny_nuscenes import TinyNuScenes

from perception3d.data.info_file import InfoFile, encode, write_info_file
from perception3d.data.nuscenes import NuScenesDataset
from perception3d.data.nuscenes_info import build_info_files
from perception3d.data.nuscenes_tables import TableOptions
from perception3d.errors import UserError
from perception3d.metrics import nuscenes_results
from perception3d.metrics.nuscenes import NuScenesMetric
from perception3d.metrics.nuscenes_infos import info_metrics
from perception3d.metrics.nuscenes_official import load_tables, official_metrics, split_tokens
from perception3d.structures import Boxes3D, Detections
from perception3d.transforms import LoadAnnotations

REPOSITORY = Path(nuscenes_results.__file__).resolve().parents[2]


def assert_same(found, expected, path=""):
    assert found.keys() == expected.keys(), path
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_same(found[key], value, f"{path}.{key}")
        elif value is None:
            assert found[key] is None, f"{path}.{key}"
        else:
            assert found[key] == pytest.approx(value, abs=1e-9), f"{path}.{key}"


@pytest.mark.golden
@pytest.mark.nuscenes
class TestRecordedFrame:
    """golden/detection: eval_frame, tolerance 1e-9."""

    @pytest.fixture
    def expected(self, golden_detection):
        return json.loads((golden_detection / "eval_summary.json").read_text())

    def counts(self):
        """Half of the classes are there within their range: mAP cannot exceed 0.5."""
        present = {"car": 4, "truck": 2, "pedestrian": 10, "barrier": 14, "traffic_cone": 3}
        return {name: present.get(name, 0) for name in nuscenes_results.CLASSES}

    @pytest.fixture
    def document(self, golden_detection):
        return json.loads((golden_detection / "eval_detections_frame.json").read_text())

    def test_tables(self, real_frame, document, expected):
        tables = load_tables(real_frame, "v1.0-mini")
        found = official_metrics(document, tables, "mini_train")
        assert found.pop("num_ground_truth") == self.counts()
        assert_same(found, expected["official_DetectionEval_mini_train"])

    def test_infos_with_true_velocities(self, real_frame, document, expected, tmp_path):
        (summary,) = build_info_files(
            TableOptions(real_frame, "v1.0-mini"),
            tmp_path,
            velocities=real_frame / "boxes_lidar.npz",
        )
        found = info_metrics(document["results"], summary.path)
        assert found.pop("num_ground_truth") == self.counts()
        assert_same(found, expected["evalboxes_route_with_true_velocities"])


class TestBothRoutes:
    @pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
    def test_agree_where_tables_are_complete(self, dataset, noise):
        samples = [dataset[i] for i in range(len(dataset))]
        entries = [entry(s, noisy(s, i, noise)) for i, s in enumerate(samples)]
        official, metric = evaluate(dataset, entries)
        infos, other = evaluate(dataset, entries, ground_truth="infos")
        assert_same(other.summary, metric.summary)
        assert infos == pytest.approx(official, abs=1e-9)
        assert 0 < official["nuscenes/mAP"] < 1
        assert set(official) >= {"nuscenes/NDS", "nuscenes/mATE", "nuscenes/car/AP"}
        assert "nuscenes/traffic_cone/AOE" not in official  # undefined
        assert all(math.isfinite(value) for value in official.values())

    def test_perfect_detections(self, dataset):
        """All classes that are there reach AP 1; empty boxes are no ground truth."""
        entries = []
        for i in range(len(dataset)):
            sample, columns = dataset[i], dataset.frame(i).annotations
            known = columns.labels >= 0
            seen = (columns.num_lidar_pts + columns.num_radar_pts)[known] > 0
            targets = sample.targets.take(torch.from_numpy(seen))
            scores = torch.full((len(targets),), 0.9)
            entries.append(entry(sample, Detections(targets.boxes, scores, targets.labels)))
        figures, metric = evaluate(dataset, entries)
        counts = metric.summary["num_ground_truth"]
        assert counts["car"] > 0 == counts["bus"]
        for name in ("car", "truck", "pedestrian"):
            assert figures[f"nuscenes/{name}/AP"] == pytest.approx(1.0)
            assert figures[f"nuscenes/{name}/ATE"] < 1e-4
            assert figures[f"nuscenes/{name}/AOE"] < 0.1  # the boxes of the tables are tilted
        assert figures["nuscenes/bus/AP"] == 0.0
        assert figures["nuscenes/mAP_present"] == pytest.approx(1.0)
        assert figures["nuscenes/mAP"] == pytest.approx(sum(c > 0 for c in counts.values()) / 10)

    def test_cycles_in_a_rack_do_not_count(self, dataset):
        """The rack of the first scene holds a bicycle; finding it or not changes nothing."""
        rack_scene = [dataset[i] for i in range(3)]
        bicycle = dataset.classes.index("bicycle")
        with_it, without = [], []
        for i in range(len(dataset)):
            sample = dataset[i]
            columns = dataset.frame(i).annotations
            rows = [c == "static_object.bicycle_rack" for c in columns.categories]
            center = columns.boxes[rows.index(True), :3]
            offsets = sample.targets.boxes.centers - torch.from_numpy(center).float()
            parked = (offsets.norm(dim=1) < 1) & (sample.targets.labels == bicycle)
            assert int(parked.sum()) == (1 if i < len(rack_scene) else 0)
            scores = torch.full((len(parked),), 0.5)
            everything = Detections(sample.targets.boxes, scores, sample.targets.labels)
            with_it.append(entry(sample, everything))
            without.append(entry(sample, everything.take(~parked)))
        for route in ("tables", "infos"):
            found = evaluate(dataset, with_it, ground_truth=route)[0]
            assert found == evaluate(dataset, without, ground_truth=route)[0]

    def test_no_detections_at_all(self, dataset):
        nothing = Detections(Boxes3D.empty(), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        entries = [entry(dataset[i], nothing) for i in range(len(dataset))]
        official, metric = evaluate(dataset, entries)
        infos, other = evaluate(dataset, entries, ground_truth="infos")
        assert official == infos
        assert official["nuscenes/mAP"] == official["nuscenes/NDS"] == 0.0
        assert_same(other.summary, metric.summary)

    def test_own_split(self, tmp_path):
        data = TinyNuScenes(tmp_path, version="v1.0-own", scenes={"a": 2, "b": 2}).write()
        (data.table_folder / "splits.json").write_text('{"mine": ["b"]}')
        (summary,) = build_info_files(TableOptions(tmp_path, "v1.0-own"), tmp_path)
        dataset = NuScenesDataset(
            str(tmp_path), summary.path.name, (LoadAnnotations(),), test_mode=True
        )
        entries = [entry(dataset[i], noisy(dataset[i], i)) for i in range(2)]
        official, _ = evaluate(dataset, entries)
        assert official == pytest.approx(evaluate(dataset, entries, ground_truth="infos")[0])
        assert official["nuscenes/mAP"] > 0

    def test_missing_frames(self, dataset):
        entries = [entry(dataset[0], noisy(dataset[0]))]
        with pytest.raises(
            UserError, match=r"1 samples, 5 in the split; they lack 4, e\.g\. sampl"
        ):
            evaluate(dataset, entries)
        figures, _ = evaluate(dataset, entries, ground_truth="infos")  # the frames at hand
        assert figures["nuscenes/mAP"] > 0
        entries[0]["token"] = "unknown"  # a frame, no secret
        with pytest.raises(UserError, match="1 of 1 predicted frames are not in"):
            evaluate(dataset, entries, ground_truth="infos")

    def test_velocities_of_the_info_file_count(self, dataset, tmp_path):
        info = InfoFile(dataset.info.path)
        records = [info.record(i) for i in range(len(info))]
        for record in records:
            velocity = record["annotations"]["velocity"]
            record["annotations"]["velocity"] = [[None, None] for _ in velocity]
        write_info_file(tmp_path / "infos.jsonl", info.header, map(encode, records))
        entries = [entry(dataset[i], noisy(dataset[i], i)) for i in range(len(dataset))]
        known, _ = evaluate(dataset, entries, ground_truth="infos")
        unknown, _ = evaluate(
            dataset, entries, ground_truth="infos", ann_file=str(tmp_path / "infos.jsonl")
        )
        assert unknown["nuscenes/car/AVE"] == 1.0 != known["nuscenes/car/AVE"]
        assert unknown["nuscenes/mAP"] == known["nuscenes/mAP"]


class TestWrongUse:
    def test_arguments(self):
        with pytest.raises(UserError, match="ground_truth must be 'tables' or 'infos', got 'x'"):
            NuScenesMetric("x")
        with pytest.raises(UserError, match="give out_dir"):
            NuScenesMetric(format_only=True)

    def test_augmented_frames(self, dataset):
        item = entry(dataset[0], noisy(dataset[0]))
        item["augmentation"] = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0]).double())
        with pytest.raises(UserError, match="was augmented before evaluation"):
            NuScenesMetric().process(None, [item])

    def test_unknown_places(self, dataset, tmp_path):
        entries = [entry(dataset[0], noisy(dataset[0]))]
        with pytest.raises(UserError, match="no tables of version v1.0-mini under"):
            evaluate(dataset, entries, data_root=str(tmp_path))
        with pytest.raises(UserError, match="split none is neither predefined nor in"):
            evaluate(dataset, entries, split="none")
        metric = NuScenesMetric()
        metric.process(None, entries)
        with pytest.raises(UserError, match="NuScenesMetric: classes is not known"):
            metric.evaluate(1)

    def test_tables_are_loaded_once(self, dataset):
        tables = load_tables(Path(dataset.data_root), "v1.0-mini")
        assert load_tables(Path(dataset.data_root), "v1.0-mini") is tables
        assert len(split_tokens(tables, "mini_val")) == 2


PROCESS = """
import json, sys
import torch
import torch.distributed as dist
sys.path.insert(0, {tests!r})
from made_detections import entry, noisy
from perception3d.data.nuscenes import NuScenesDataset
from perception3d.metrics.nuscenes import NuScenesMetric
from perception3d.transforms import LoadAnnotations

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://{store}", rank=rank, world_size=2)
dataset = NuScenesDataset({root!r}, {ann_file!r}, (LoadAnnotations(),), test_mode=True)
metric = NuScenesMetric({route!r})
metric.dataset_meta = dataset.metainfo
for i in (rank, rank + 2, (rank + 4) % len(dataset)):  # the last one of rank 1 is padding
    metric.process(None, [entry(dataset[i], noisy(dataset[i], i))])
print(json.dumps(metric.evaluate(len(dataset))))
dist.destroy_process_group()
"""


@pytest.mark.parametrize("route", ["tables", "infos"])
def test_two_processes_give_the_figures_of_one(dataset, tmp_path, route):
    code = PROCESS.format(
        tests=str(Path(__file__).parent),
        store=tmp_path / "store",
        root=dataset.data_root,
        ann_file=str(dataset.info.path),
        route=route,
    )
    path = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parents[1])])
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    entries = [entry(dataset[i], noisy(dataset[i], i)) for i in range(len(dataset))]
    expected, _ = evaluate(dataset, entries, ground_truth=route)
    for output in outputs:
        assert json.loads(output.splitlines()[-1]) == expected
    assert [item.name for item in tmp_path.iterdir() if item.name != "store"] == []
