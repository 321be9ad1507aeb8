"""A toy run of four epochs."""

from torch.optim import AdamW
from toy_training import ToyDataset, ToyMetric, ToyNet

from perception3d.engine.optim import OneCycle
from perception3d.engine.trainable import TrainableModel

model = dict(type=TrainableModel, net=dict(type=ToyNet))
train_dataloader = dict(dataset=dict(type=ToyDataset), batch_size=4)
val_dataloader = dict(dataset=dict(type=ToyDataset, size=5, noise=0.0), batch_size=2)
test_dataloader = val_dataloader
val_evaluator = dict(type=ToyMetric)
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=0.02, weight_decay=0.05), max_norm=10.0)
param_scheduler = dict(type=OneCycle)
train_cfg = dict(max_epochs=4)
checkpoint = dict(best="score")
logging = dict(interval=2)
randomness = dict(seed=3)
