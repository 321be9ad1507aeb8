"""Sorting rows by segment: hand-computed, against the reference, at the edges."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from voxel_samples import assert_same, threads

from perception3d.ops import segment_index
from perception3d.ops.reference.segment_index import segment_index as reference


@pytest.mark.parametrize("sort", [segment_index, reference])
def test_by_hand(sort):
    order, offsets = sort(torch.tensor([2, 0, -1, 2, 0, 3]), 5)
    assert order.tolist() == [1, 4, 0, 3, 5]
    assert offsets.tolist() == [0, 2, 2, 4, 5, 5]


@pytest.mark.parametrize("sort", [segment_index, reference])
@pytest.mark.parametrize(
    ("segments", "count", "order", "offsets"),
    [
        ([], 0, [], [0]),
        ([], 3, [], [0, 0, 0, 0]),
        ([-1, -7], 2, [], [0, 0, 0]),
        ([0], 1, [0], [0, 1]),
    ],
)
def test_little_input(sort, segments, count, order, offsets):
    result = sort(torch.tensor(segments, dtype=torch.int64), count)
    assert_same(result, (torch.tensor(order, dtype=torch.int64), torch.tensor(offsets)))


@pytest.mark.parametrize(("rows", "segments"), [(200_000, 7), (200_000, 150_000), (1000, 10**6)])
def test_equals_reference_on_any_number_of_threads(rows, segments):
    generator = torch.Generator().manual_seed(rows + segments)
    ids = torch.randint(-1, segments, (rows,), generator=generator)
    wanted = reference(ids, segments)
    for count in (1, 2, 5):
        with threads(count):
            assert_same(segment_index(ids, segments), wanted)


@given(st.lists(st.integers(-2, 9), max_size=60))
def test_order_is_a_stable_permutation_of_the_kept_rows(ids):
    order, offsets = segment_index(torch.tensor(ids, dtype=torch.int64), 10)
    kept = [row for row, segment in enumerate(ids) if segment >= 0]
    assert sorted(order.tolist()) == kept
    assert order.tolist() == sorted(kept, key=lambda row: (ids[row], row))
    assert offsets[-1] == len(kept)


def test_non_contiguous_input():
    ids = torch.randint(0, 5, (40, 2))[:, 0]
    assert not ids.is_contiguous()
    assert_same(segment_index(ids, 5), reference(ids.contiguous(), 5))


def test_opcheck():
    ids = torch.randint(-1, 5, (40,))
    torch.library.opcheck(torch.ops.perception3d.segment_index, (ids, 5))


def test_compiles_whole():
    def sizes(ids):
        return segment_index(ids, 6)[1].diff()

    ids = torch.tensor([5, 0, 5, -1])
    compiled = torch.compile(sizes, fullgraph=True, backend="aot_eager")
    assert compiled(ids).tolist() == [1, 0, 0, 0, 0, 2]


def test_errors():
    ids = torch.tensor([0, 3])
    with pytest.raises(RuntimeError, match="must be < num_segments = 3, got 3 in row 1"):
        segment_index(ids, 3)
    with pytest.raises(ValueError, match="num_segments must be >= 0, got -1"):
        segment_index(ids, -1)
    with pytest.raises(TypeError, match=r"segment_of_row must be \(R,\) int64, got \(2,\) int32"):
        segment_index(ids.int(), 3)
    with pytest.raises(ValueError, match=r"must be \(R,\) int64, got \(2, 1\) int64"):
        segment_index(ids[:, None], 3)
