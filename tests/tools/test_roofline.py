"""tools/roofline.py."""

import json

from perception3d.benchmark import ceilings


def test_prints_and_stores(run_tool, tmp_path, monkeypatch):
    monkeypatch.setattr(ceilings, "LONGEST", 0.0)
    path = tmp_path / "roofline.json"
    code, out, err = run_tool("roofline", "--threads", "1", "--json", path)
    assert (code, err) == (0, "")
    assert "float32 multiply-adds" in out
    assert set(json.loads(path.read_text())["ceilings"]) == {"cpu_1_threads"}


def test_wrong_device_or_threads(run_tool):
    assert "must be cpu, cuda or cuda:N, got 'gpu'" in run_tool("roofline", "--device", "gpu")[2]
    assert "sees no such CUDA device" in run_tool("roofline", "--device", "cuda:99")[2]
    assert "at least 1, got 0" in run_tool("roofline", "--threads", "0")[2]
