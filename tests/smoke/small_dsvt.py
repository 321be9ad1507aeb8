"""The demo's DSVT made small enough for tests, and how a tool ended."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "dsvt" / "dsvt_demo.py"
VERSION = "v1.0-synthetic"
# The demo's DSVT with a third of its range and a quarter of its channels: the same parts, quick.
SMALL = (
    "point_cloud_range=(-14.4,-14.4,-5.0,14.4,14.4,3.0)",
    "model.net.backbone.grid_size=(64,64,1)",
    "model.net.encoder.channels=(16,16)",
    "model.net.backbone.channels=16",
    "model.net.neck.in_channels=16",
    "model.net.neck.channels=(16,24)",
    "model.net.neck.upsample_channels=(12,12)",
    "model.net.head.in_channels=24",
    "model.net.head.layers.shared_channels=12",
    "num_sweeps=1",
    "num_workers=0",
    "logging.interval=1",
)


@dataclass
class Ended:
    """How a tool ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The message of a tool that failed as it should: one line, no traceback."""
        lines = self.err.splitlines()
        assert self.code in (1, 2), self
        assert "Traceback" not in self.out + self.err
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:], self.err
        assert all(line.startswith(("error: ", "warning: ")) for line in lines), self.err
        return lines[-1]


def settings(root: Path, *more: str) -> tuple[str, ...]:
    """Return the settings of a tiny run on a data root, for the end of a command line."""
    return ("--cfg-options", *SMALL, f"data_root={root}", *more)
