"""What the replays of all detection heads share."""

import torch
from torch import nn

from perception3d.checkpoint import translate
from perception3d.parity.case import Case
from perception3d.structures import Boxes3D, Targets


def official_names(case: Case, head: nn.Module) -> list[str]:
    """Return "name (shape)" of every tensor of our head under the names that the case records."""
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    found = []
    for text in case.array("out.state_dict_names").tolist():
        official = text.split(" ", 1)[0]
        ours = translate(official, "dsvt", part="dense_head")
        if ours in shapes:
            found.append(f"{official} {shapes.pop(ours)}")
    return found + [f"{name} {shape}" for name, shape in shapes.items()]


def read_targets(case: Case, device: torch.device) -> list[Targets]:
    """Return the ground truth of `in.gt_boxes` (B, n, 8 or 10); class 0 is padding."""
    targets = []
    for rows in case.tensor("in.gt_boxes", device):
        rows = rows[rows[:, -1] > 0]
        boxes = rows.new_full((len(rows), 9), torch.nan)
        boxes[:, : rows.shape[1] - 1] = rows[:, :-1]
        unknown = torch.zeros(len(rows), dtype=torch.int64, device=device)
        targets.append(Targets(Boxes3D(boxes), rows[:, -1].long() - 1, unknown))
    return targets
