"""The CUDA kernels of curve_index and curve_order."""

import pytest
import torch

from perception3d.ops.reference.curve_order import curve_index, curve_order


def sample(count, batch_size, cells, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coords = torch.randint(0, cells, (count, 4), generator=generator).int()
    coords[:, 0] %= max(batch_size, 1)
    coords[::5] = coords[:1].clone()  # voxels of one cell keep their order
    return coords


@pytest.mark.parametrize("curve", ["hilbert", "z_order"])
@pytest.mark.parametrize(
    ("count", "batch_size", "rank"), [(0, 0, 3), (0, 2, 3), (1, 1, 1), (700, 3, 9), (500, 16, 20)]
)
def test_equals_reference(kernels, count, batch_size, rank, curve):
    coords = sample(count, batch_size, (1 << rank) - 1)
    wanted = curve_index(coords, rank, shift=1, curve=curve)
    assert torch.equal(kernels.curve_index(coords, rank, 1, curve == "hilbert"), wanted)
    tables = kernels.curve_order(coords, batch_size, rank, 1, curve == "hilbert")
    for ours, theirs in zip(
        tables, curve_order(coords, batch_size, rank, shift=1, curve=curve), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_more_frames_than_voxels(kernels):
    coords = torch.tensor([[2, 1, 0, 3], [600, 1, 2, 3], [2, 0, 0, 0]], dtype=torch.int32)
    tables = kernels.curve_order(coords, 700, 4, 0, True)
    for ours, theirs in zip(tables, curve_order(coords, 700, 4), strict=True):
        assert torch.equal(ours, theirs)


def test_refusals(interpreter):
    coords = torch.tensor([[0, 1, 2, 3], [1, 7, 7, 7]], dtype=torch.int32)
    with pytest.raises(RuntimeError, match="at rank 20 a batch may have 16 frames at most"):
        interpreter.curve_order(coords, 17, 20, 0, True)
    with pytest.raises(RuntimeError, match=r"coords plus the shift must be in 0\.\.7, got 8"):
        interpreter.curve_index(coords, 3, 1, True)
    with pytest.raises(RuntimeError, match=r"curve_order: frames must be in 0\.\.0, got 1"):
        interpreter.curve_order(coords, 1, 3, 0, True)
    with pytest.raises(RuntimeError, match=r"rank must be in 1\.\.20, got 21"):
        interpreter.curve_index(coords, 21, 0, True)
