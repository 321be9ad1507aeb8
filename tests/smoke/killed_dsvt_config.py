"""The demo's DSVT, killed in the middle of its second epoch of two steps."""

from mmengine.config import read_base

with read_base():
    from ...configs.dsvt.dsvt_demo import *  # noqa: F403, TID252  # mmengine's inheritance syntax

from toy_training import KillHook

custom_hooks = [dict(type=KillHook, step=3)]
