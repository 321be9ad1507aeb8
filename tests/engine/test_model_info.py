"""Counts against sums done by hand."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from perception3d.benchmark.network import measure_stages, rows
from perception3d.benchmark.shares import measure_shares
from perception3d.engine.model_info import examine, repeat_cloud, report
from perception3d.ops.set_attention import set_attention
from perception3d.structures import Batch, SparseVoxels, WindowSpec


class Attend(nn.Module):
    """Attention inside sets, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(5, 8)

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        sets = voxels.sets(WindowSpec((1, 4, 4)), 6)
        heads = self.project(voxels.features).view(-1, 2, 4)
        mixed = set_attention(heads, heads, heads, sets.order[0], sets.offsets)
        return voxels.with_features(mixed.flatten(1))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Attend()
        self.neck = nn.Conv2d(8, 3, 3, padding=1, bias=False)

    def forward(self, batch: Batch) -> Tensor:
        cells = torch.stack(
            [torch.zeros(20), torch.zeros(20), torch.arange(20) // 8, torch.arange(20) % 8], dim=1
        ).int()
        voxels = self.backbone(SparseVoxels(batch.points, cells, (1, 8, 8), 1))
        dense = voxels.features.new_zeros(64, 8)
        dense[:20] = voxels.features
        return self.neck(dense.T.reshape(1, 8, 8, 8))

    def predict(self, batch: Batch) -> Tensor:
        return self(batch)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss_sum": self(batch).sum(), "shown": torch.ones(())}


@pytest.fixture
def batch() -> Batch:
    return repeat_cloud(torch.rand(20, 5), 1, "cloud")


def test_operations_counted_by_hand(batch: Batch) -> None:
    info = examine(Net(), batch)
    backbone, neck, total = info.parts
    # 20 pillars in rows of 8: windows of 4 x 4 hold 4 + 4 + 4 = 12 and 8; sets of 6 slots
    # -> ceil(12 / 6) + ceil(8 / 6) = 4 sets, in two sort orders
    assert info.sets == ((8, 6),)
    linear = 2 * 20 * 5 * 8
    pairs = 6 * 6 + 6 * 6 + 4 * 4 + 4 * 4  # the sets of 12 and of 8 voxels are filled evenly
    attention = 2 * (2 * pairs * 2 * 4)  # two products; pairs, heads, width
    assert backbone.flops == linear + attention
    assert neck.flops == 2 * 64 * 8 * 3 * 9
    assert total.flops == backbone.flops + neck.flops
    assert (backbone.parameters, neck.parameters) == (5 * 8 + 8, 8 * 3 * 9)
    assert total.parameters == backbone.parameters + neck.parameters
    assert backbone.voxels == 20
    assert neck.voxels is None
    text = report(info)
    assert "attention over 8 sets of 6 slots" in text
    assert text.splitlines()[0] == "1 frame(s), 20 points"


def test_a_cloud_is_repeated() -> None:
    points = torch.rand(3, 5)
    batch = repeat_cloud(points, 2, "c")
    assert batch.tokens == ("c0", "c1")
    assert batch.frame_of_point.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(batch.points[3:], points)
    assert repeat_cloud(torch.zeros(0, 5), 2, "c").points.shape == (0, 5)


@pytest.mark.parametrize("train", [False, True])
def test_stages_are_timed(batch: Batch, train: bool) -> None:
    net = Net()
    threads = torch.get_num_threads()
    timings = measure_stages(net, batch, rounds=3, threads=1, train=train)
    assert list(timings) == ["backbone", "neck", "rest", "total"]
    assert torch.get_num_threads() == threads
    for number in range(3):
        parts = sum(timings[name].rounds[number] for name in ("backbone", "neck", "rest"))
        assert parts == pytest.approx(timings["total"].rounds[number])
        assert timings["neck"].rounds[number] > 0
    assert (net.neck.weight.grad is not None) is train
    assert not net.backbone._forward_hooks
    written = rows(timings, op="toy", workload="cloud", batch=batch, threads=1, direction="both")
    assert [row["op"] for row in written] == [f"toy/{name}" for name in timings]
    keys = "op workload dtype device threads direction ours_ms peer_name peer_ms ratio floor_ms"
    keys += " floor_kind ours_over_floor max_err n spread"
    assert set(keys.split()) <= set(written[0])
    assert json.loads(json.dumps(written))[0]["n"] == 3


@pytest.mark.parametrize("part", [None, "neck"])
def test_operators_have_their_shares(batch: Batch, part: str | None) -> None:
    net = Net()
    shares = measure_shares(net, batch, part, rounds=2)
    assert sum(share.share for share in shares) == pytest.approx(1.0)
    assert [share.milliseconds for share in shares] == sorted(
        (share.milliseconds for share in shares), reverse=True
    )
    calls = {share.operator: share.calls for share in shares}
    assert calls["aten::convolution"] == 1
    assert ("aten::arange" in calls) is (part is None)  # outside the neck
    assert not net.neck._forward_pre_hooks
    with pytest.raises(ValueError, match="part must be one of .*'neck'.*, got 'head'"):
        measure_shares(net, batch, "head")


def test_the_report_is_stored_whole(tmp_path: Path) -> None:
    from perception3d.engine.latency import store

    store({"rows": [1]}, tmp_path / "deep" / "report.json")
    assert json.loads((tmp_path / "deep" / "report.json").read_text()) == {"rows": [1]}
