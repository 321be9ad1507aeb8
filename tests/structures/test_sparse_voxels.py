"""SparseVoxels: the index cache follows the coordinates, and bad values are refused."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perception3d.ops.curve_order import curve_index
from perception3d.structures import CurveSpec, SparseVoxels, WindowSpec

SHAPE = (2, 9, 7)


def random_voxels(count: int, batch_size: int = 3, seed: int = 0) -> SparseVoxels:
    generator = torch.Generator().manual_seed(seed)
    depth, height, width = SHAPE
    cells = depth * height * width
    flat = torch.randperm(batch_size * cells, generator=generator)[:count]
    columns = (
        flat // cells,
        flat // (height * width) % depth,
        flat // width % height,
        flat % width,
    )
    features = torch.randn(count, 4, generator=generator)
    return SparseVoxels(features, torch.stack(columns, 1).int(), SHAPE, batch_size)


def test_tables_are_computed_once_per_spec():
    voxels = random_voxels(30)
    spec = WindowSpec((2, 3, 3))
    assert voxels.windows(spec) is voxels.windows(WindowSpec((2, 3, 3)))
    assert voxels.windows(spec) is not voxels.windows(WindowSpec((2, 3, 3), (0, 1, 1)))
    assert voxels.sets(spec, 4) is voxels.sets(spec, 4)
    assert voxels.sets(spec, 4) is not voxels.sets(spec, 5)


def test_new_features_keep_the_tables():
    voxels = random_voxels(30)
    windows = voxels.windows(WindowSpec((2, 3, 3)))
    other = voxels.with_features(torch.zeros(30, 8))
    assert other.windows(WindowSpec((2, 3, 3))) is windows
    assert other.features.shape == (30, 8)
    assert other.coords is voxels.coords
    with pytest.raises(ValueError, match="equally many rows, got 29 and 30"):
        voxels.with_features(torch.zeros(29, 8))


def test_taken_rows_get_tables_of_their_own():
    voxels = random_voxels(30)
    spec = WindowSpec((2, 3, 3))
    before = voxels.windows(spec)
    taken = voxels.take(torch.arange(29, -1, -1))
    assert taken.windows(spec) is not before
    assert torch.equal(taken.windows(spec).cell_in_window, before.cell_in_window.flip(0))
    assert torch.equal(taken.features, voxels.features.flip(0))


def test_values_cannot_be_replaced():
    voxels = random_voxels(3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        voxels.coords = voxels.coords.flip(0)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 120),
    size=st.tuples(st.integers(1, 3), st.integers(1, 10), st.integers(1, 8)),
    shift=st.tuples(*[st.integers(-2, 2)] * 3),
    axis_order=st.sampled_from(["xyz", "zyx"]),
    seed=st.integers(0, 1000),
)
def test_windows_hold_every_voxel_once(count, size, shift, axis_order, seed):
    voxels = random_voxels(count, seed=seed)
    # A shift beyond the window would make different windows share a number.
    shift = tuple(max(-w, min(w, s)) for s, w in zip(shift, size, strict=True))
    windows = voxels.windows(WindowSpec(size, shift, axis_order))
    assert torch.equal(windows.order.sort().values, torch.arange(count))
    assert windows.offsets[0] == 0
    assert windows.offsets[-1] == count
    assert (windows.offsets.diff() > 0).all()
    assert torch.equal(
        windows.window_of_voxel[windows.order].sort(stable=True).indices, torch.arange(count)
    )
    expected = [
        (b, *((c + s) // w for c, s, w in zip(cell, shift, size, strict=True)))
        for b, *cell in voxels.coords.tolist()
    ]
    numbers = windows.window_of_voxel.tolist()
    assert (
        len(set(zip(expected, numbers, strict=True))) == len(set(expected)) == windows.num_windows
    )
    cells = [
        tuple((c + s) % w for c, s, w in zip(cell, shift, size, strict=True))
        for _, *cell in voxels.coords.tolist()
    ]
    assert [tuple(row) for row in windows.cell_in_window.tolist()] == cells


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 120), set_size=st.integers(1, 12), seed=st.integers(0, 1000))
def test_sets_hold_every_voxel_in_one_set_of_each_order(count, set_size, seed):
    voxels = random_voxels(count, seed=seed)
    spec = WindowSpec((2, 4, 4), (0, 2, 2))
    sets, windows = voxels.sets(spec, set_size), voxels.windows(spec)
    assert sets.voxel_of_slot.shape[2] == set_size
    for voxel_of_slot, repeated, slot_of_voxel in zip(
        sets.voxel_of_slot, sets.repeated, sets.slot_of_voxel, strict=True
    ):
        own = voxel_of_slot[~repeated]
        assert torch.equal(own.sort().values, torch.arange(count))
        assert torch.equal(voxel_of_slot.flatten()[slot_of_voxel], torch.arange(count))
        assert not repeated[:, 0].any()
        assert torch.equal(repeated[:, 1:], voxel_of_slot[:, 1:] == voxel_of_slot[:, :-1])
        window = windows.window_of_voxel[voxel_of_slot]
        assert (window == window[:, :1]).all()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"features": torch.zeros(2)},
            ValueError,
            r"features must be \(N, C\).* got \(2,\) float32",
        ),
        ({"features": torch.zeros(2, 3).long()}, TypeError, r"got \(2, 3\) int64"),
        ({"coords": torch.zeros(2, 3).int()}, ValueError, r"coords must be \(N, 4\) int32"),
        ({"coords": torch.zeros(2, 4).long()}, TypeError, r"got \(2, 4\) int64"),
        ({"coords": [[0, 0, 0, 0]]}, TypeError, "got list"),
        ({"coords": torch.zeros(3, 4).int()}, ValueError, "equally many rows, got 2 and 3"),
        (
            {"spatial_shape": (1, 2)},
            ValueError,
            r"three cell counts >= 1 \(z, y, x\), got \(1, 2\)",
        ),
        ({"spatial_shape": (1, 0, 2)}, ValueError, "three cell counts"),
        ({"batch_size": 0}, ValueError, "batch_size must be >= 1, got 0"),
    ],
)
def test_bad_values_are_refused(changes: dict, error: type, message: str):
    good = {
        "features": torch.zeros(2, 3),
        "coords": torch.zeros(2, 4).int(),
        "spatial_shape": (1, 2, 2),
        "batch_size": 1,
    }
    SparseVoxels(**good)
    with pytest.raises(error, match=message):
        SparseVoxels(**good | changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((1, 2),), "size must be three cell counts"),
        (((1, 0, 2),), "size must be three cell counts"),
        (((1, 2, 2), (0, 0)), "shift must be three"),
        (((1, 2, 2), (0, 0, 0), "yxz"), "axis_order must be 'xyz' or 'zyx', got 'yxz'"),
    ],
)
def test_bad_window_specs_are_refused(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        WindowSpec(*arguments)


@pytest.mark.parametrize("kind", ["hilbert", "z_order"])
def test_curves_order_the_voxels_of_every_frame(kind):
    voxels = random_voxels(60, batch_size=4)
    voxels = voxels.take(torch.nonzero(voxels.coords[:, 0] != 2).squeeze(1))  # one frame is empty
    spec = CurveSpec(4, shift=3, kind=kind)
    curve = voxels.curve(spec)
    assert voxels.with_features(torch.zeros(voxels.num_voxels, 1)).curve(spec) is curve
    assert voxels.curve(CurveSpec(4, 2, kind)) is not curve
    assert voxels.curve(CurveSpec(5, 3, kind)) is not curve
    counts = torch.bincount(voxels.coords[:, 0].long(), minlength=4)
    assert torch.equal(curve.offsets.diff(), counts)
    assert counts[2] == 0
    index = curve_index(voxels.coords, 4, shift=3, curve=kind)[curve.order]
    for start, end in zip(curve.offsets[:-1], curve.offsets[1:], strict=True):
        assert (index[start:end].diff() > 0).all()
        assert (voxels.coords[curve.order[start:end], 0].diff() == 0).all()


def test_curves_are_checked():
    with pytest.raises(ValueError, match=r"rank must lie in 1\.\.20, got 21"):
        CurveSpec(21)
    with pytest.raises(ValueError, match="shift must be >= 0, got -1"):
        CurveSpec(9, -1)
    with pytest.raises(ValueError, match="kind must be one of .*, got 'peano'"):
        CurveSpec(9, kind="peano")
