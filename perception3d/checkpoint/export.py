"""Our weights under official names, in official order."""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from perception3d.checkpoint.load import CheckpointError
from perception3d.checkpoint.names import SYSTEMS, NameRule, find_rule

_GROUP = re.compile(r"\(([^()]*)\)")

# Official state dicts list a detector's children in this order; the DSVT backbone lists a stage's
# blocks, then its norms, then its pooling; ScatterFormer's a stage's modules kind by kind; a mixer
# of Voxel Mamba repeats A_log and D before its last projection.  Groups are numbers of stages or
# blocks.
_ORDER = (
    r"global_step",
    r"vfe\.",
    r"backbone_3d\.input_layer\.",
    r"backbone_3d\.(?:residual_norm_)?stage_(\d+)",
    r"backbone_3d\.cpe\.",
    *(
        rf"backbone_3d\.stage{number}\.{part}"
        for number in (1, 2)
        for part in (r"0\.norm_layers\.", r"0\.attn_layers\.", r"0\.cffn_layers\.", r"[12]\.")
    ),
    r"backbone_3d\.app\.norm\.",
    r"backbone_3d\.app\.self_attn\.",
    r"backbone_3d\.app\.pos_embedding\.",
    r"backbone_2d\.layers\.",
    r"backbone_3d\.block_list\.(\d+)",
    r"backbone_3d\.downZ_list\.",
    r"backbone_3d\.conv_out\.",
    r"backbone_3d\.pos_embed\.",
    r"backbone_2d\.blocks\.",
    r"backbone_2d\.deblocks\.",
    r"dense_head\.",
)
_STAGE_ORDER = (
    r"backbone_3d\.stage_\d+\.",
    r"backbone_3d\.residual_norm_stage_",
    r"backbone_3d\.stage_\d+_reduction\.(?:pos_embedding|linear1\.)",
    r"backbone_3d\.stage_\d+_reduction\.norm\.",
    r"backbone_3d\.stage_\d+_reduction\.self_attn\.",
    *(
        rf"backbone_3d\.block_list\.\d+\.{part}"
        for part in (
            r"mamba_encoder_list\.0\.mixer\.(?!out_proj|\w+_temp)",
            r"mamba_encoder_list\.0\.mixer\.\w+_temp",
            r"mamba_encoder_list\.0\.",
            r"mamba_encoder_list\.1\.mixer\.(?!out_proj|\w+_temp)",
            r"mamba_encoder_list\.1\.mixer\.\w+_temp",
            r"",
        )
    ),
)


def to_official(model: nn.Module, system: str) -> dict[str, Tensor]:
    """Return the state dict of our Detector as the official implementation would write it.

    Args:
        model: our Detector.
        system: whose names are wanted, e.g. "dsvt".

    Returns:
        {official name: tensor}, in official order, with the step counter (at 0) that has no place
        in ours. `load_official` reads it back.

    Raises:
        CheckpointError: a tensor that has no official name.
        ValueError: unknown system.
    """
    named = {}
    for name, value in model.state_dict().items():
        for official in (official_name(name, system), *repeated_names(name, system)):
            named[official] = value.detach()
    return {"global_step": torch.zeros(1, dtype=torch.int64), **in_official_order(named)}


def official_name(name: str, system: str) -> str:
    """Return the official name of one of ours; the rules of `names`, read backwards.

    Raises:
        CheckpointError: there is none.
    """
    if system not in SYSTEMS:
        raise ValueError(f"checkpoint: system must be one of {sorted(SYSTEMS)}, got {system!r}")
    official = next(_names_of(name, system, repeated=False), None)
    if official is None:
        raise CheckpointError(f"system {system!r} has no name for {name}")
    return official


def repeated_names(name: str, system: str) -> list[str]:
    """Return the further official names of one of ours: the tensor is there again under them."""
    return list(_names_of(name, system, repeated=True))


def _names_of(name: str, system: str, *, repeated: bool) -> Iterator[str]:
    for rule in SYSTEMS[system]:
        official = _backwards(rule, name) if rule.repeated is repeated else None
        if official is not None:
            found = find_rule(official, system)
            if found is not None and found[1] == name:
                yield official


def _backwards(rule: NameRule, name: str) -> str | None:
    """Return the official name that a rule turns into `name`, None if there is none.

    Patterns are literal text with escaped dots, and groups that are not nested.
    """
    if rule.replacement is None or rule.transform is not None:
        return None
    groups = _GROUP.findall(rule.pattern)
    ours = re.escape(rule.replacement)
    for number, group in enumerate(groups, start=1):
        ours = ours.replace(rf"\\{number}", f"(?P<g{number}>{group})")
    match = re.fullmatch(ours, name)
    if match is None:
        return None
    parts = iter(match[f"g{number}"] for number in range(1, len(groups) + 1))
    return _GROUP.sub(lambda _: next(parts), rule.pattern).replace("\\.", ".")


def in_official_order(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in the order of official state dicts; those of one child as they come."""
    return dict(sorted(named.items(), key=lambda item: _place(item[0])))


def _place(name: str) -> tuple[int, int, int]:
    for place, pattern in enumerate(_ORDER):
        match = re.match(pattern, name)
        if match and match.groups():
            within = next(i for i, part in enumerate(_STAGE_ORDER) if re.match(part, name))
            return place, int(match[1]), within
        if match:
            return place, 0, 0
    raise CheckpointError(f"no official state dict has the tensor {name}")
