import pytest
import torch
from toy_training import ToyDataset

from perception3d.engine.loaders import TestBatches, TrainBatches, build_loader, mix
from perception3d.errors import UserError


@pytest.mark.parametrize("size", [1, 5, 8, 13])
@pytest.mark.parametrize("drop_last", [False, True])
def test_two_processes_share_the_order_of_one(size: int, drop_last: bool) -> None:
    if drop_last and size < 4:
        with pytest.raises(UserError, match="do not fill one step of 1 x 4"):
            TrainBatches(size, 4, drop_last=True)
        return
    one = TrainBatches(size, 4, seed=7, drop_last=drop_last)
    two = [
        TrainBatches(size, 2, seed=7, drop_last=drop_last, process=p, processes=2) for p in (0, 1)
    ]
    for epoch in (0, 1):
        for batches in (one, *two):
            batches.set_epoch(epoch)
        joined = [a + b for a, b in zip(*two, strict=True)]
        assert joined == list(one)
        assert len(one) == len(two[0]) == len(joined)


def test_an_epoch_holds_every_sample_and_differs_from_the_next() -> None:
    batches = TrainBatches(12, 4, seed=1)
    first = [i for batch in batches for i in batch]
    batches.set_epoch(1)
    second = [i for batch in batches for i in batch]
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    batches.set_epoch(0)
    assert [i for batch in batches for i in batch] == first


def test_an_incomplete_step_is_filled_from_the_start() -> None:
    batches = TrainBatches(5, 4, shuffle=False)
    assert list(batches) == [[0, 1, 2, 3], [4, 0, 1, 2]]
    assert list(TrainBatches(5, 4, shuffle=False, drop_last=True)) == [[0, 1, 2, 3]]
    assert list(TrainBatches(2, 5, shuffle=False)) == [[0, 1, 0, 1, 0]]


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_evaluation_sees_every_sample(size: int, processes: int) -> None:
    parts = [
        [i for batch in TestBatches(size, 2, p, processes) for i in batch] for p in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1  # mmengine's collection asks for it
    # it takes one result of each process in turn, and cuts the surplus
    assert [i for turn in zip(*parts, strict=True) for i in turn][:size] == list(range(size))


def test_seeds_are_spread() -> None:
    seeds = {mix(seed, epoch, rank) for seed in range(8) for epoch in range(8) for rank in range(8)}
    assert len(seeds) == 512
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_loading_leaves_the_random_stream_alone() -> None:
    loader = build_loader(
        {"dataset": {"type": ToyDataset}, "batch_size": 4}, "train_dataloader", seed=5, train=True
    )
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    batches = list(loader)
    assert torch.equal(torch.rand(3), expected)
    assert [batch["batch"].batch_size for batch in batches] == [4, 4, 4]
    assert loader.dataset.seed == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batchsize": 2}, "train_dataloader: no key 'batchsize'; did you mean 'batch_size'"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"num_workers": -1}, "num_workers must be a whole number >= 0, got -1"),
        ({"dataset": {"type": ToyDataset, "size": 0}}, "holds no frame"),
        ({"dataset": {"type": ToyDataset, "sizes": 1}}, "no argument 'sizes'"),
    ],
)
def test_mistakes_are_named(change: dict, message: str) -> None:
    config = {"dataset": {"type": ToyDataset}, **change}
    with pytest.raises(UserError, match=message):
        build_loader(config, "train_dataloader", seed=0, train=True)
