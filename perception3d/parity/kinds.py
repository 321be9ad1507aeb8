"""Which function replays which kind of case.

A replay takes the case and a device and returns every result that the case records, by key
(`out.*`, `grad.*`): tensors, arrays, lists or numbers.  It reads every setting from the case.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from perception3d.parity import (
    bev,
    center_head,
    detection_eval,
    dsvt,
    encoder,
    geometry,
    linear_attention,
    partition,
    scatterformer,
    sequences,
    sparse_conv,
    state_dict,
    transfusion_head,
    voxel_mamba,
    voxelization,
)
from perception3d.parity.case import Array, Case, CaseError

Replay = Callable[[Case, torch.device], Mapping[str, object]]
Expected = Callable[[Case], Mapping[str, Array]]


@dataclass(frozen=True)
class Kind:
    """How one kind is replayed.

    Attributes:
        replay: the replay; None for a file that is only the input of other cases and passes if it
            can be read.
        expected: the reference, where it is not the `out.` and `grad.` arrays of the data file
            (JSON kinds).
        needs: packages of the replay beside torch and numpy.
    """

    replay: Replay | None
    expected: Expected | None = None
    needs: tuple[str, ...] = ()


# Kinds that mean the same in every system.
KINDS: dict[str, Kind] = {
    "hilbert_index": Kind(sequences.replay_hilbert_index),
    "serialisation": Kind(sequences.replay_serialisation),
    "selective_scan": Kind(sequences.replay_selective_scan),
    "set_partition": Kind(partition.replay_set_partition),
    "linear_attention": Kind(linear_attention.replay_linear_attention),
    "depthwise_conv": Kind(sparse_conv.replay_depthwise_conv),
    "window_partition": Kind(partition.replay_window_partition),
    "encoder_layer": Kind(dsvt.replay_encoder_layer),
    "voxel_encoder": Kind(encoder.replay_voxel_encoder),
    "iou": Kind(geometry.replay_iou),
    "nms": Kind(geometry.replay_nms),
    "points_in_boxes": Kind(geometry.replay_points_in_boxes),
    "voxelize": Kind(voxelization.replay_voxelize),
    "voxelize_hard": Kind(voxelization.replay_voxelize_hard),
    "bev_backbone": Kind(bev.replay_bev_backbone),
    "head_forward": Kind(center_head.replay_head_forward),
    "head_targets": Kind(center_head.replay_head_targets),
    "head_loss_decode": Kind(
        center_head.replay_head_loss_decode, center_head.expected_head_loss_decode, ("scipy",)
    ),
    "transfusion_head": Kind(
        transfusion_head.replay_transfusion_head,
        transfusion_head.expected_transfusion_head,
        ("scipy",),
    ),
    "detection_eval": Kind(
        detection_eval.replay_detection_eval,
        detection_eval.expected_detection_eval,
        ("nuscenes", "scipy"),
    ),
    "detection_results": Kind(None),
    "detection_ground_truth": Kind(None),
}

# Kinds that wait for what they replay.
NOT_BUILT: dict[str, str] = {
    "mamba_block": "Mamba block",
    "dual_scale_block": "dual-scale block of Voxel Mamba",
}
SYSTEM_NOT_BUILT: dict[tuple[str, str], str] = {
    ("voxel_mamba", "backbone"): "backbone of Voxel Mamba",
}

# Kinds whose network depends on the system.
SYSTEM_KINDS: dict[tuple[str, str], Kind] = {
    ("dsvt", "backbone"): Kind(dsvt.replay_backbone),
    ("dsvt", "state_dict"): Kind(
        state_dict.replay_state_dict, state_dict.expected_state_dict, ("mmengine",)
    ),
    ("scatterformer", "layer"): Kind(scatterformer.replay_layer),
    ("scatterformer", "pillar_pooling"): Kind(scatterformer.replay_pillar_pooling),
    ("scatterformer", "backbone"): Kind(scatterformer.replay_backbone),
    ("voxel_mamba", "mamba_block"): Kind(voxel_mamba.replay_mamba_block),
    ("voxel_mamba", "dual_scale_block"): Kind(voxel_mamba.replay_dual_scale_block),
    ("voxel_mamba", "backbone"): Kind(voxel_mamba.replay_backbone),
}


def find_kind(case: Case) -> Kind:
    """Return how to replay a case; CaseError if nothing here can."""
    kind = SYSTEM_KINDS.get((case.system, case.kind)) or KINDS.get(case.kind)
    waiting = SYSTEM_NOT_BUILT.get((case.system, case.kind)) or NOT_BUILT.get(case.kind)
    if kind is None and waiting is not None:
        raise CaseError(f"{waiting}: not built yet")
    if kind is None:
        raise CaseError(f"no replay for kind {case.kind!r} of system {case.system!r}")
    return kind


def why_not(case: Case) -> str | None:
    """Return why a case cannot be replayed on this machine, None if it can."""
    try:
        kind = find_kind(case)
    except CaseError as error:
        return str(error)
    missing = [name for name in kind.needs if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed" if missing else None
