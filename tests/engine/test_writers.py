import io
import json
import math
from pathlib import Path

from perception3d.engine.writers import ConsoleWriter, JsonLinesWriter, describe, duration

TRAIN = {
    "event": "train",
    "epoch": 2,
    "epochs": 3,
    "step": 40,
    "steps": 60,
    "loss": 1.5,
    "loss_box": 0.5,
    "shown": 9.0,
    "lr": 0.001,
    "grad_norm": 3.0,
    "step_s": 0.5,
    "data_s": 0.01,
    "eta_s": 3725.0,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_off_a_terminal() -> None:
    stream = io.StringIO()
    writer = ConsoleWriter(stream)
    writer.begin("train", 0, 60)
    for _ in range(40):
        writer.advance()
    writer.write(TRAIN)
    writer.end()
    assert stream.getvalue() == (
        "epoch 2/3  step 40/60  loss 1.5000  loss_box 0.5000  lr 0.001  grad 3  "
        "0.500 s (data 0.010)  ETA 1:02:05\n"
    )


def test_a_long_test_says_how_far_it_is() -> None:
    stream = io.StringIO()
    writer = ConsoleWriter(stream, every_s=-1.0)
    writer.begin("test", 0, 4)
    writer.advance()
    assert stream.getvalue().startswith("test step 1/4  ETA 0:00:0")


def test_a_bar_on_a_terminal() -> None:
    stream = Terminal()
    writer = ConsoleWriter(stream)
    writer.begin("train", 10, 60)
    writer.advance()
    writer.write(TRAIN)
    writer.end()
    text = stream.getvalue()
    assert "train" in text
    assert "/60" in text
    assert "\r" in text
    assert "epoch 2/3  step 40/60" in text


def test_json_lines_hold_what_json_can_hold(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    writer = JsonLinesWriter(path)
    writer.write({"event": "val", "a": math.nan, "b": [math.inf, 1.0], "c": {"d": 2}})
    writer.write({"event": "end"})
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first.pop("time") <= second.pop("time")
    assert first == {"event": "val", "a": None, "b": [None, 1.0], "c": {"d": 2}}
    assert second == {"event": "end"}


def test_class_figures_stay_in_the_file() -> None:
    record = {"event": "val", "nuscenes/mAP": 0.5, "nuscenes/car/AP": 0.7, "seconds": 2.0}
    assert describe(record) == "val  mAP 0.5000  (2.0 s)"


def test_durations() -> None:
    assert duration(0.4) == "0:00:00"
    assert duration(86399.0) == "23:59:59"
