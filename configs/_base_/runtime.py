"""Checkpoints, logging, seed."""

checkpoint = dict(interval=1, keep=3, best="NDS")
logging = dict(interval=20)
randomness = dict(seed=0)
sync_bn = True  # batch norms see the frames of all processes
