"""Replays the parameter lists of the published DSVT detectors."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

import perception3d
from perception3d.checkpoint import to_official
from perception3d.parity.case import Array, Case, CaseError

# Official config and ours.
CONFIGS = {
    "dsvt_plain_1f_onestage": "dsvt_waymo_pillar.py",
    "dsvt_3D_1f_onestage": "dsvt_waymo_voxel.py",
    "dsvt_plain_1f_onestage_nusences": "dsvt_nuscenes_pillar.py",
}


def expected_state_dict(case: Case) -> dict[str, Array]:
    """Return per model the numbered names, shapes and dtypes that are recorded."""
    return {model: _lines(_tensors(case, model)) for model in case.config["models"]}


def replay_state_dict(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind state_dict: build our model and write its state dict under official names."""
    return {model: _lines(_ours(case, model)) for model in case.config["models"]}


def _tensors(case: Case, model: str) -> dict[str, Any]:
    """Return {name: [shape, dtype]} of a model."""
    tensors = case.document["models"][model]
    if len(tensors) != case.config["models"][model]:
        raise CaseError(
            f"{model} must have {case.config['models'][model]} tensors, got {len(tensors)}"
        )
    return dict(tensors)


def _ours(case: Case, model: str) -> dict[str, Any]:
    from perception3d.engine.build import build
    from perception3d.engine.config import load_config  # operators need no mmengine

    official = case.config["official_configs"][model]
    if official not in CONFIGS:
        raise CaseError(f"there is no config for {official}, only for {sorted(CONFIGS)}")
    folder = Path(perception3d.__file__).parents[1] / "configs" / "dsvt"
    detector = build(load_config(folder / CONFIGS[official]).model).net
    return {
        name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for name, tensor in to_official(detector, case.system).items()
    }


def _lines(tensors: dict[str, Any]) -> Array:
    """Return one text per tensor, numbered: texts are compared as a set, and order counts."""
    return np.array(
        [
            f"{place} {name} {list(shape)} {dtype}"
            for place, (name, (shape, dtype)) in enumerate(tensors.items())
        ]
    )
