"""A detector of bright spots."""

from bright_spot import BrightSpot, SpotDataset

from perception3d.engine.trainable import TrainableModel

model = dict(type=TrainableModel, net=dict(type=BrightSpot, classes=["car", "pedestrian"]))
val_dataloader = dict(dataset=dict(type=SpotDataset), batch_size=1)
test_dataloader = dict(dataset=dict(type=SpotDataset, annotated=False), batch_size=1)
train_dataloader = dict(dataset=dict(type=SpotDataset, classes=("bus",)), batch_size=1)
