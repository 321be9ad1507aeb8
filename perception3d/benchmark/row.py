"""What one line of the operator benchmark measures."""

from collections.abc import Callable
from dataclasses import dataclass, field

from perception3d.benchmark.measure import Candidate
from perception3d.benchmark.workloads import Workload


@dataclass(frozen=True)
class Case:
    """A row on one workload, inputs prepared.

    Attributes:
        ours: our operator.
        peers: others that do the same work, by name.
        max_error: largest error of our result relative to the reference, 0 for equal tables.
        floor_bytes: bytes that any implementation must move: inputs read, results written once.
    """

    ours: Candidate
    peers: dict[str, Candidate]
    max_error: float
    floor_bytes: int


@dataclass(frozen=True)
class Row:
    """One operator at one setting.

    Attributes:
        op: operator, as in `perception3d.ops`.
        setting: grid or shape.
        prepare: makes the case of a workload.
        workloads: names of the workloads that make sense.
        tolerance: largest max_error that may be timed.
        direction: "forward", "backward" or "both".
        required: ratio to the best peer that must be reached on f10, by peer name.
    """

    op: str
    setting: str
    prepare: Callable[[Workload], Case]
    workloads: tuple[str, ...]
    tolerance: float = 0.0
    direction: str = "forward"
    required: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name to select rows by, such as "voxelize/dsvt_pillar_nuscenes"."""
        suffix = "" if self.direction == "forward" else f"/{self.direction}"
        return f"{self.op}/{self.setting}{suffix}"
