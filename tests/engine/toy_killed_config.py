"""The toy run, killed in its third epoch."""

from mmengine.config import read_base

with read_base():
    from .toy_config import *  # noqa: F403  # mmengine's inheritance syntax

from toy_training import KillHook

custom_hooks = [dict(type=KillHook, step=8)]
