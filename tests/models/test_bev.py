"""Dense maps from voxels, and the residual network on them."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.profiler import profile

from perception3d.layers.conv_norm import NormedConv
from perception3d.layers.sync_batch_norm import synchronise_norms
from perception3d.models.necks.bev import BevBackbone, scatter_to_bev
from perception3d.models.necks.residual_block import Projection
from perception3d.models.necks.sparse_entry import takes_voxels
from perception3d.structures import SparseVoxels


def voxels(coords: list, features, shape=(2, 3, 4), batch_size=2) -> SparseVoxels:
    rows = torch.tensor(coords, dtype=torch.int32).view(-1, 4)
    return SparseVoxels(torch.as_tensor(features), rows, shape, batch_size)


def test_channel_is_feature_times_depth_plus_z():
    given_voxels = voxels([[0, 1, 2, 3], [1, 0, 0, 1]], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    bev = scatter_to_bev(given_voxels)
    assert bev.shape == (2, 6, 3, 4)
    expected = torch.zeros(2, 6, 3, 4)
    expected[0, [1, 3, 5], 2, 3] = torch.tensor([1.0, 2.0, 3.0])
    expected[1, [0, 2, 4], 0, 1] = torch.tensor([4.0, 5.0, 6.0])
    assert torch.equal(bev, expected)
    assert bev.is_contiguous(memory_format=torch.channels_last)


def test_empty_frames_at_the_end_and_empty_batches_keep_their_place():
    bev = scatter_to_bev(voxels([[0, 0, 0, 0]], [[1.0]], batch_size=3))
    assert bev.shape == (3, 2, 3, 4)
    assert bev[0].sum() == 1
    assert not bev[1:].any()
    assert not scatter_to_bev(voxels([], torch.zeros(0, 5))).any()


@given(st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_map_does_not_depend_on_the_order_of_voxels(seed):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(2 * 2 * 3 * 4, generator=generator)[:9]
    coords = torch.stack([cells // 24, cells // 12 % 2, cells // 4 % 3, cells % 4], 1)
    features = torch.randn(9, 2, generator=generator)
    order = torch.randperm(9, generator=generator)
    maps = [
        scatter_to_bev(voxels(coords[rows].tolist(), features[rows])) for rows in (slice(9), order)
    ]
    assert torch.equal(*maps)
    back = maps[0].view(2, 2, 2, 3, 4)[coords[:, 0], :, coords[:, 1], coords[:, 2], coords[:, 3]]
    assert torch.equal(back, features)


def test_gradient_of_the_map():
    coords = [[0, 1, 2, 3], [1, 0, 0, 1], [1, 1, 0, 1]]
    features = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: scatter_to_bev(voxels(coords, x)), (features,))


def test_official_shapes():
    waymo = BevBackbone(192)
    assert (waymo.stride, waymo.out_channels) == (1, 384)
    nuscenes = BevBackbone(128, upsample=(0.5, 1, 2))
    assert (nuscenes.stride, nuscenes.out_channels) == (2, 384)
    assert [type(part[0]) for part in nuscenes.resamplers] == [
        nn.Conv2d,  # (out, in, 2, 2)
        nn.ConvTranspose2d,  # (in, out, 1, 1): as square as the one before, but turned
        nn.ConvTranspose2d,
    ]


@pytest.mark.parametrize(("upsample", "stride"), [((0.5, 1), 2), ((1, 2), 1), ((0.25, 0.5), 4)])
def test_output_has_the_stride_it_states(upsample, stride):
    network = BevBackbone(4, (0, 1), (1, 2), (4, 6), upsample, (3, 5)).eval()
    assert network.stride == stride
    bev = network(voxels([[0, 1, 2, 3]], torch.ones(1, 2), shape=(2, 8, 12)))
    assert bev.shape == (2, 8, 8 // stride, 12 // stride)


def test_resamplers_by_hand():
    network = BevBackbone(1, (0,), (1,), (1,), (0.5,), (1,)).eval()
    half = network.resamplers[0][0]
    half.weight.data = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    image = torch.arange(16.0).view(1, 1, 4, 4)
    patches = F.unfold(image, 2, stride=2)[0]
    expected = (torch.tensor([1.0, 2.0, 3.0, 4.0]) @ patches).view(1, 1, 2, 2)
    assert torch.equal(half(image), expected)
    double = BevBackbone(1, (0,), (2,), (1,), (2,), (1,)).resamplers[0][0]
    double.weight.data = half.weight.data
    assert torch.equal(double(image[..., :1, :1] + 5), torch.tensor([[[[5.0, 10], [15, 20]]]]))


def test_shortcut_is_projected_once_per_level_and_identity_after():
    network = BevBackbone(4, (1, 2), (1, 2), (4, 4), (1, 2), (2, 2))
    kinds = [[type(block.shortcut) for block in level] for level in network.levels]
    assert kinds == [[NormedConv, nn.Identity], [NormedConv, nn.Identity, nn.Identity]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(blocks=(1, 1)), "one entry per level"),
        (dict(upsample=(1, 1, 1)), "one whole stride"),
        (dict(strides=(1, 1, 1), upsample=(2, 2, 2)), "one whole stride"),
    ],
)
def test_levels_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BevBackbone(8, **arguments)


def test_maps_that_do_not_fit_are_refused():
    network = BevBackbone(2, (0, 0), (1, 2), (4, 4), (1, 2), (2, 2))
    with pytest.raises(ValueError, match=r"multiple of 2 cells, .* got \(H, W\) = \(3, 4\)"):
        network(voxels([[0, 0, 0, 0]], torch.ones(1, 1)))
    with pytest.raises(ValueError, match="bev must be"):
        network(voxels([[0, 0, 0, 0]], torch.ones(1, 7)))


@pytest.mark.parametrize("count", [0, 1, 30, 90])
def test_mostly_empty_maps_are_entered_where_voxels_are(count):
    torch.manual_seed(count)
    neck = BevBackbone(16, (1,), (1,), (24,), (1,), (8,)).eval()
    for name, value in neck.state_dict().items():  # norms that make something of zero
        if name.endswith(("running_mean", "bias")):
            value.normal_()
    cells = torch.randperm(2 * 12 * 12)[:count]
    coords = torch.stack([cells // 144, cells * 0, cells // 12 % 12, cells % 12], 1)
    given_voxels = voxels(coords.tolist(), torch.randn(count, 16), (1, 12, 12))
    assert not takes_voxels(neck.levels[0][0], given_voxels)  # gradients are recorded
    wanted = neck(given_voxels).detach()
    with torch.no_grad():
        assert takes_voxels(neck.levels[0][0], given_voxels)
        found = neck(given_voxels)
    torch.testing.assert_close(found, wanted)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_norms_of_several_processes_are_taken_in_as_well():
    neck = BevBackbone(16, (1,), (1,), (24,), (1,), (8,)).eval()
    coords = [[0, 0, 1, 2], [0, 0, 5, 5], [0, 0, 0, 0]]
    given_voxels = voxels(coords, torch.randn(3, 16), (1, 6, 6), batch_size=1)
    with torch.no_grad():
        wanted = neck(given_voxels)
        synchronise_norms(neck)
        assert takes_voxels(neck.levels[0][0], given_voxels)
        torch.testing.assert_close(neck(given_voxels), wanted)


def test_a_crowded_map_is_entered_densely():
    neck = BevBackbone(16, (1,), (1,), (24,), (1,), (8,)).eval()
    coords = torch.cartesian_prod(*map(torch.arange, (1, 1, 6, 6)))[:12]
    given_voxels = voxels(coords.tolist(), torch.randn(12, 16), (1, 6, 6), batch_size=1)
    with torch.no_grad():
        assert not takes_voxels(neck.levels[0][0], given_voxels)


@pytest.mark.parametrize("channels", [1, 8, 15, 16, 24])
def test_projections_of_any_width_have_the_gradients_of_a_convolution(channels):
    # In float32 oneDNN would write past its memory below 16 channels.
    projection = Projection(channels, 4, 1, 2, bias=False)
    bev = torch.randn(3, channels, 8, 12).to(memory_format=torch.channels_last).requires_grad_()
    found = torch.autograd.grad(projection(bev).square().sum(), [bev, projection.weight])
    exact = [leaf.detach().double().requires_grad_() for leaf in (bev, projection.weight)]
    wanted = torch.autograd.grad(F.conv2d(*exact, stride=2).square().sum(), exact)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-4)


def test_narrow_projections_stride_by_a_slice():
    projection, bev = Projection(8, 4, 1, 2, bias=False), torch.randn(3, 8, 8, 12)
    with profile(record_shapes=True) as record:
        projection(bev)
    inputs = [event.input_shapes[0] for event in record.events() if event.name == "aten::conv2d"]
    assert inputs == [[3, 8, 4, 6]]
