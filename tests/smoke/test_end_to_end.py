"""From simulated points to a metric, with the real DSVT config made small."""

import json
from pathlib import Path

import torch
from small_dsvt import CONFIG, SMALL, settings

from perception3d.data.collate import collate
from perception3d.engine.build import build
from perception3d.engine.checkpoint_file import load_weights, read_checkpoint
from perception3d.engine.config import load_config, plain
from perception3d.engine.network import load_dataset, load_network


def test_training_lowers_the_loss_and_survives_its_checkpoint(root):
    config = load_config(CONFIG, [*SMALL, f"data_root={root}"])
    torch.manual_seed(0)
    model = build(plain(config)["model"]).train()
    batch = collate([load_dataset(config, "train")[0]])["batch"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        total, _ = model.parse_losses(model(batch, mode="loss"))
        losses.append(float(total.detach()))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]


def test_train_test_reload(root, tool, tmp_path):
    changes = settings(root, "train_cfg.max_epochs=1", "train_cfg.val_interval=1")
    trained = tool("train", CONFIG, "--work-dir", "run", "--device", "cpu", *changes)
    assert trained.code == 0, trained.err
    records = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    scores = [record for record in records if record["event"] == "val"]

    changes = settings(root)
    checkpoint = tmp_path / "run" / "epoch_1.pth"
    tested = tool("test", CONFIG, checkpoint, "--out", "result", "--device", "cpu", *changes)
    assert tested.code == 0, tested.err
    metrics = json.loads(Path("result/metrics.json").read_text())
    assert 0.0 <= metrics["mAP"] <= 1.0
    assert metrics["NDS"] == scores[0]["nuscenes/NDS"]  # the reloaded weights are the trained ones
    submission = json.loads(Path("result/results_nusc.json").read_text())
    assert len(submission["results"]) == 2  # the frames of the held-out scene

    config = load_config(CONFIG, [*SMALL, f"data_root={root}"])
    net = load_network(config, checkpoint, "cpu")
    again = load_network(config, None, "cpu")
    load_weights(build(plain(config)["model"]), read_checkpoint(checkpoint), checkpoint)
    again.load_state_dict(net.state_dict())
    batch = collate([load_dataset(config, "test")[0]])["batch"]
    with torch.no_grad():
        one, two = net.predict(batch)[0], again.predict(batch)[0]
    assert len(one)
    assert torch.equal(one.boxes.tensor, two.boxes.tensor)
    assert torch.equal(one.scores, two.scores)
