"""Two gloo processes against torch's batch norm on the joined rows, in float64."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from perception3d.layers.processes import loss_divisor, sum_over_processes
from perception3d.layers.sync_batch_norm import SyncBatchNorm, synchronise_norms

SHAPES = {"rows": (7, 3), "image": (3, 3, 2, 4), "one process empty": (5, 3)}


def parts(name: str, values: Tensor) -> list[Tensor]:
    """Cut the rows for two processes, unevenly."""
    cut = values.shape[0] if name == "one process empty" else 1 + values.shape[0] // 2
    return [values[:cut], values[cut:]]


def reference(values: Tensor, weights: Tensor) -> dict[str, Tensor]:
    norm = build(values.shape)
    return forward_backward(norm, values, weights)


def build(shape: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(1)
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    norm = kind(shape[1], eps=1e-3, momentum=0.01).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def forward_backward(norm: nn.Module, values: Tensor, weights: Tensor) -> dict[str, Tensor]:
    values = values.clone().requires_grad_()
    output = norm(values)
    (output * weights).sum().backward()
    return {
        "output": output.detach(),
        "input gradient": values.grad,
        "weight gradient": norm.weight.grad,
        "bias gradient": norm.bias.grad,
        "running mean": norm.running_mean,
        "running variance": norm.running_var,
        "eval output": norm.eval()(values).detach(),
    }


def work(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    results = {}
    for name, (values, weights) in torch.load(Path(folder) / "inputs.pt").items():
        norm = synchronise_norms(build(values.shape))
        results[name] = forward_backward(
            norm, parts(name, values)[rank], parts(name, weights)[rank]
        )
    lonely = synchronise_norms(build((1, 3)))
    rows = torch.full((1 - rank, 3), 4.0).double()  # one row, and none in the other process
    results["lonely"] = forward_backward(lonely, rows, torch.ones_like(rows))
    results["lonely"]["steps"] = lonely.num_batches_tracked
    results["sum"] = sum_over_processes(torch.tensor([float(rank + 1)]))
    results["divisors"] = torch.stack(
        [loss_divisor(torch.tensor(3 * rank)), loss_divisor(torch.tensor(0))]
    )
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = {
        name: (torch.randn(shape).double() * 3 + 100, torch.randn(shape).double())
        for name, shape in SHAPES.items()
    }
    torch.save(inputs, tmp_path / "inputs.pt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, str(tmp_path)), nprocs=2)
    ours = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert [float(part["sum"]) for part in ours] == [3.0, 3.0]
    for part in ours:  # 3 things in all, and none at all, halved
        assert part["divisors"].tolist() == [1.5, 0.5]
    for part in (ours[0]["lonely"], ours[1]["lonely"]):  # what RowBatchNorm does alone
        assert torch.equal(part["running mean"], torch.zeros(3).double())
        assert torch.equal(part["running variance"], torch.ones(3).double())
        assert int(part["steps"]) == 0
        torch.testing.assert_close(part["output"], part["eval output"])
    for name, (values, weights) in inputs.items():
        wanted = reference(values, weights)
        first, second = (part[name] for part in ours)
        for key in ("output", "input gradient", "eval output"):
            joined = torch.cat([first[key], second[key]])
            torch.testing.assert_close(joined, wanted[key], rtol=1e-10, atol=1e-10)
        for key in ("weight gradient", "bias gradient"):
            torch.testing.assert_close(
                first[key] + second[key], wanted[key], rtol=1e-10, atol=1e-10
            )
        for key in ("running mean", "running variance"):
            torch.testing.assert_close(first[key], wanted[key], rtol=1e-12, atol=0.0)
            assert torch.equal(first[key], second[key])


def test_alone_it_is_torchs_batch_norm() -> None:
    values = torch.randn(6, 3).double()
    weights = torch.randn(6, 3).double()
    ours = forward_backward(synchronise_norms(build((6, 3))), values, weights)
    for key, wanted in reference(values, weights).items():
        assert torch.equal(ours[key], wanted), key


def test_every_norm_is_replaced_and_keeps_its_state() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3, momentum=0.2), nn.ReLU()))
    net[1][0].running_mean.fill_(5.0)
    names = list(net.state_dict())
    weight = net[1][0].weight
    assert synchronise_norms(net) is net
    norm = net[1][0]
    assert isinstance(norm, SyncBatchNorm)
    assert norm.weight is weight
    assert norm.momentum == 0.2
    assert float(norm.running_mean[0]) == 5.0
    assert list(net.state_dict()) == names
    assert synchronise_norms(net)[1][0] is norm  # done once


def test_alone_the_divisor_is_the_count() -> None:
    assert int(loss_divisor(torch.tensor(5))) == 5
    assert int(loss_divisor(torch.tensor(0))) == 1


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input must be \(N, C, ...\), got \(3,\)"):
        SyncBatchNorm(3)(torch.zeros(3))
