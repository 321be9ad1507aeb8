"""Hooks: what happens between the steps of training."""

from perception3d.engine.hooks.checkpoints import CheckpointHook
from perception3d.engine.hooks.drawing import DrawHook
from perception3d.engine.hooks.epochs import EpochHook, FadeHook, ScheduleHook
from perception3d.engine.hooks.logs import LogHook
from perception3d.engine.hooks.memory import MemoryHook

__all__ = [
    "CheckpointHook",
    "DrawHook",
    "EpochHook",
    "FadeHook",
    "LogHook",
    "MemoryHook",
    "ScheduleHook",
]
