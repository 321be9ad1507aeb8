"""What a model is measured with: frames of its data set, or one cloud of the benchmark."""

from mmengine.config import Config
from torch import nn

from perception3d.benchmark.workloads import WORKLOADS, MissingData, make_workload
from perception3d.data.collate import collate
from perception3d.engine.model_info import repeat_cloud
from perception3d.engine.network import load_dataset
from perception3d.errors import UserError, unknown
from perception3d.structures import Batch


def make_batch(config: Config, workload: str, frames: int, net: nn.Module) -> Batch:
    """Make a batch on a network's device.

    Args:
        config: its test data set is used for "data".
        workload: "data", or a cloud of `perception3d.benchmark.workloads`, repeated.
        frames: frames of the batch.
        net: its device is used.

    Raises:
        UserError: unknown workload, fewer frames than asked for, or the real frame is not there.
    """
    if frames < 1:
        raise UserError(f"--frames must be >= 1, got {frames}")
    device = next(net.parameters()).device
    if workload == "data":
        dataset = load_dataset(config, "test")
        if len(dataset) < frames:
            raise UserError(f"--frames {frames}: the test set has {len(dataset)}")
        return collate([dataset[index] for index in range(frames)])["batch"].to(device)
    if workload not in WORKLOADS:
        raise UserError(f"--workload: {unknown(workload, ('data', *WORKLOADS), 'workload')}")
    try:
        points = make_workload(workload).points
    except MissingData as error:
        raise UserError(f"--workload {workload}: {error}") from error
    return repeat_cloud(points, frames, workload).to(device)
