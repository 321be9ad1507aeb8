"""A network and its data from a config, without a runner: for demos, pictures, measurements."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from perception3d.engine.build import build
from perception3d.engine.checkpoint_file import load_weights, read_checkpoint
from perception3d.engine.config import load_config, plain
from perception3d.engine.distributed import choose_device
from perception3d.errors import UserError


def load_network(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | None = None,
) -> nn.Module:
    """Build the plain network of a config, in eval mode.

    Args:
        config: config file, or what `load_config` made of it.
        checkpoint: file with weights, of training here or a bare state dict; None: as initialised.
        device: "cpu", "cuda" or "cuda:N"; None: CUDA where there is any.

    Returns:
        The `net` of the config's model: `predict(batch) -> list[Detections]`.

    Raises:
        UserError: anything wrong with the config, the checkpoint or the device.
    """
    sections = plain(config if isinstance(config, Config) else load_config(config))
    where = choose_device(device)
    if "model" not in sections:
        raise UserError("config: has no section 'model'")
    model: nn.Module = build(sections["model"], path="model")
    if checkpoint is not None:
        load_weights(model, read_checkpoint(checkpoint), checkpoint)
    net = getattr(model, "net", model)
    assert isinstance(net, nn.Module)
    return net.to(where).eval()


def load_dataset(config: str | Path | Config, phase: str = "test") -> Any:
    """Build the data set of a config section.

    Args:
        config: config file, or what `load_config` made of it.
        phase: "train", "val" or "test".

    Raises:
        UserError: no such section, or something wrong with it.
    """
    sections = plain(config if isinstance(config, Config) else load_config(config))
    name = f"{phase}_dataloader"
    if not sections.get(name) or "dataset" not in sections[name]:
        raise UserError(f"config: has no section {name!r} with a dataset")
    dataset = build(sections[name]["dataset"], path=f"{name}.dataset")
    if hasattr(dataset, "full_init"):
        dataset.full_init()
    return dataset
