"""One cycle of Adam with decoupled decay over 20 epochs.

Numbers from Haiyang-W/DSVT: tools/cfgs/dsvt_models/dsvt_plain_1f_onestage_nusences.yaml.
"""

from torch.optim import AdamW

from perception3d.engine.optim import OneCycle

optim_wrapper = dict(
    optimizer=dict(type=AdamW, lr=0.005, weight_decay=0.05, betas=(0.95, 0.99)),
    max_norm=35.0,
)
param_scheduler = dict(type=OneCycle, warmup=0.4, div=10.0, beta1=(0.95, 0.85))
train_cfg = dict(max_epochs=20, val_interval=5)
auto_scale_lr = dict(base_batch_size=32)
