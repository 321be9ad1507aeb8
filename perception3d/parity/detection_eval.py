"""The nuScenes detection metric among the kinds; the devkit is imported only to replay it."""

import torch

from perception3d.parity.case import Array, Case, flatten_json


def expected_detection_eval(case: Case) -> dict[str, Array]:
    """Return the recorded figures; the boxes in the same file are no figures."""
    document = case.document
    return flatten_json(document.get("summary", document))


def replay_detection_eval(case: Case, device: torch.device) -> dict[str, object]:
    """Replay kind detection_eval; the metric runs on the CPU whatever the device."""
    from perception3d.parity.detection_figures import detection_figures  # operators need no devkit

    return dict(flatten_json(detection_figures(case)))
