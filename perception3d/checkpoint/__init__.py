"""Weights of the official implementations in our models."""

from perception3d.checkpoint.export import official_name, to_official
from perception3d.checkpoint.load import (
    CheckpointError,
    LoadReport,
    load_official,
    read_official,
)
from perception3d.checkpoint.names import OFFICIAL_PARTS, SYSTEMS, NameRule, translate

__all__ = [
    "OFFICIAL_PARTS",
    "SYSTEMS",
    "CheckpointError",
    "LoadReport",
    "NameRule",
    "load_official",
    "official_name",
    "read_official",
    "to_official",
    "translate",
]
