"""Replays the dynamic voxel and pillar encoders."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perception3d.checkpoint import load_official
from perception3d.models.encoders import PillarEncoder, VoxelEncoder
from perception3d.models.voxelizer import Voxelizer
from perception3d.parity.case import Case, CaseError
from perception3d.parity.replay import Outputs, replay_module, set_norms

_ENCODERS = {"pillar": PillarEncoder, "voxel": VoxelEncoder}


def replay_voxel_encoder(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind voxel_encoder: voxelisation and encoder, from points (P, 1 + F) with frames."""
    config = case.config
    if config["vfe"] not in _ENCODERS:
        raise CaseError(f"vfe must be one of {sorted(_ENCODERS)}, got {config['vfe']!r}")
    voxelizer = Voxelizer(
        tuple(config["voxel_size_xyz"]),
        tuple(config["point_cloud_range"]),
        check_z=config["vfe"] == "voxel",
    )
    if list(voxelizer.grid_size) != list(config["grid_size_xyz"]):
        raise CaseError(f"grid must be {config['grid_size_xyz']}, got {voxelizer.grid_size}")

    def build() -> tuple[nn.Module, Mapping[str, str]]:
        encoder = _ENCODERS[config["vfe"]](
            tuple(config["voxel_size_xyz"]),
            tuple(config["point_cloud_range"]),
            config["num_point_features"],
            config["num_filters"],
            use_absolute_xyz=config["use_absolute_xyz"],
            with_distance=config["with_distance"],
            use_norm=config["use_norm"],
        )
        set_norms(encoder, eps=config["bn_eps"], momentum=config["bn_momentum"])
        # The encoder has the same names in every system that uses it.
        return encoder, dict(load_official(encoder, case.parameters(), "dsvt", part="vfe").matched)

    def forward(encoder: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
        points = inputs["points"][:, 1:]
        frame_of_point = inputs["points"][:, 0].detach().int()
        assignment = voxelizer.assign(points.detach(), frame_of_point, config["batch_size"])
        voxels = encoder(points, assignment)
        named = {"features": voxels.features}
        return Outputs(voxels.features, named, {"coords": voxels.coords})

    return replay_module(case, device, build=build, forward=forward, inputs=("points",))
