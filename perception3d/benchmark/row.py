"""What one line of the operator benchmark measures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from perception3d.benchmark.measure import Candidate
from perception3d.benchmark.workloads import Workload


@dataclass(frozen=True)
class Case:
    """A row on one workload, inputs prepared on the workload's device.

    Attributes:
        ours: our operator.
        peers: others that do the same work, by name.
        max_error: largest error of our result relative to the reference, 0 for equal tables.
        floor_bytes: bytes that any implementation must move: inputs read, results written once.
        floor_flops: multiplications and additions that any implementation must do.
        floor_exps: exponentials that any implementation must take.
    """

    ours: Candidate
    peers: dict[str, Candidate]
    max_error: float
    floor_bytes: int
    floor_flops: int = 0
    floor_exps: int = 0


@dataclass(frozen=True)
class Row:
    """One operator at one setting.

    Attributes:
        op: operator, as in `perception3d.ops`.
        setting: grid or shape.
        prepare: makes the case of a workload, on the workload's device.
        workloads: names of the workloads that make sense.
        tolerance: largest max_error that may be timed.
        direction: "forward", "backward" or "both" (forward and backward together).
        required: ratio to a peer that must be reached on the CPU, by peer name, on `judged_on`.
        dtype: "float32", "bfloat16" or "float16": of the features that the operator reads.
        required_cuda: the same on CUDA.
        aim_ms: what a strong kernel takes on the CPU with two threads, on `judged_on`.
        aim_ms_cuda: the same on an H200.
    """

    op: str
    setting: str
    prepare: Callable[[Workload], Case]
    workloads: tuple[str, ...]
    tolerance: float = 0.0
    direction: str = "forward"
    required: dict[str, float] = field(default_factory=dict)
    dtype: str = "float32"
    required_cuda: dict[str, float] = field(default_factory=dict)
    aim_ms: float | None = None
    aim_ms_cuda: float | None = None

    @property
    def name(self) -> str:
        """Name to select rows by, such as "voxelize/dsvt_pillar_nuscenes"."""
        suffix = "" if self.direction == "forward" else f"/{self.direction}"
        kind = "" if self.dtype == "float32" else f"/{self.dtype}"
        return f"{self.op}/{self.setting}{suffix}{kind}"

    @property
    def judged_on(self) -> str:
        """Workload of the required ratios and aims: f10, else f1, else the last one."""
        return next((name for name in ("f10", "f1") if name in self.workloads), self.workloads[-1])

    def required_on(self, device: str) -> dict[str, float]:
        """Return the required ratios of a device type, by peer name."""
        return self.required_cuda if device == "cuda" else self.required

    def aim_on(self, device: str) -> float | None:
        """Return the aim of a device type, ms."""
        return self.aim_ms_cuda if device == "cuda" else self.aim_ms


def installed(peers: Mapping[str, Candidate | None]) -> dict[str, Candidate]:
    """Return the peers that are not None: whose package is there, whose device it is."""
    return {name: run for name, run in peers.items() if run is not None}
