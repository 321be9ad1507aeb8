import importlib.util
import itertools
import sys

import pytest
import torch
import torch.nn.functional as F

from perception3d.errors import UserError
from perception3d.layers import RowBatchNorm, sparse_rules
from perception3d.layers import spconv_rules as rules_of_spconv
from perception3d.layers.sparse_conv import (
    InverseConv3d,
    SparseConv3d,
    SparseConvBlock,
    SparseResidualBlock,
    SparseSkipBlock,
    SubMConv3d,
)
from perception3d.layers.sparse_kernel import Kernel
from perception3d.layers.sparse_rules import native_rules, rule_book
from perception3d.layers.spconv_rules import spconv_rules
from perception3d.structures import SparseVoxels

SHAPE = (5, 7, 6)
needs_spconv = pytest.mark.skipif(
    importlib.util.find_spec("spconv") is None, reason="spconv is not installed"
)


ENGINES = {
    "ours": lambda voxels, kernel, _: native_rules(voxels, kernel),
    "spconv": lambda voxels, kernel, backward: spconv_rules(voxels, kernel, backward=backward),
}


@pytest.fixture(params=["ours", pytest.param("spconv", marks=needs_spconv)], autouse=True)
def engine(request, monkeypatch):
    """Who convolves, whatever the device.  On CPUs spconv has its algorithm for any device."""
    monkeypatch.setattr(sparse_rules, "_build", ENGINES[request.param])
    return request.param


@pytest.fixture
def new_look():
    """Let spconv be looked for anew, in the test and after it."""
    caches = (rules_of_spconv._spconv, rules_of_spconv.spconv_serves_gpus)
    for found in caches:
        found.cache_clear()
    yield
    for found in caches:
        found.cache_clear()


only_ours = pytest.mark.parametrize("engine", ["ours"], indirect=True)
only_spconv = pytest.mark.parametrize("engine", ["spconv"], indirect=True)


def random_voxels(count=40, channels=3, shape=SHAPE, batch_size=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.cartesian_prod(*(torch.arange(size) for size in (batch_size, *shape)))
    rows = torch.randperm(len(cells), generator=generator)[:count]
    features = torch.randn(count, channels, generator=generator, dtype=dtype)
    return SparseVoxels(features, cells[rows].int(), shape, batch_size)


def dense(voxels):
    """(B, C, D, H, W) with zeros in empty cells."""
    grid = voxels.features.new_zeros(
        voxels.batch_size, *voxels.spatial_shape, voxels.features.shape[1]
    )
    grid = grid.index_put(tuple(voxels.coords.long().T), voxels.features)
    return grid.permute(0, 4, 1, 2, 3)


def at(grid, coords):
    return grid.permute(0, 2, 3, 4, 1)[tuple(coords.long().T)]


def sizes(kernel):
    return {"stride": kernel.stride, "padding": kernel.padding}


def dense_weight(conv):
    return conv.weight.permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("kernel", [1, 3, (3, 1, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_submanifold_equals_dense_convolution(kernel, training):
    voxels = random_voxels()
    conv = SubMConv3d(3, 4, kernel, bias=True).double().train(training)
    padding = tuple(cells // 2 for cells in conv.kernel.size)
    result = conv(voxels)
    want = F.conv3d(dense(voxels), dense_weight(conv), conv.bias, padding=padding)
    torch.testing.assert_close(result.features, at(want, voxels.coords))
    assert result.coords is voxels.coords
    assert result.cache is voxels.cache


STRIDED = [(3, 2, 1), ((3, 1, 1), (2, 1, 1), 0), (2, 2, 0), (3, 1, 1), (5, 4, 2), (1, 2, 0)]


@pytest.mark.parametrize(("kernel", "stride", "padding"), STRIDED)
def test_strided_equals_dense_convolution(kernel, stride, padding):
    voxels = random_voxels()
    conv = SparseConv3d(3, 4, kernel, stride, padding, bias=True).double().eval()
    result = conv(voxels)
    want = F.conv3d(dense(voxels), dense_weight(conv), conv.bias, **sizes(conv.kernel))
    assert result.spatial_shape == tuple(want.shape[2:])
    torch.testing.assert_close(result.features, at(want, result.coords))
    occupied = dense(voxels.with_features(torch.ones(40, 1, dtype=torch.float64)))
    seen = F.conv3d(occupied, torch.ones(1, 1, *conv.kernel.size).double(), **sizes(conv.kernel))
    assert {tuple(row) for row in result.coords.tolist()} == {
        (b, *cell) for b, _, *cell in seen.nonzero().tolist()
    }


@pytest.mark.parametrize(("kernel", "stride", "padding"), STRIDED)
def test_inverse_equals_dense_transposed_convolution(kernel, stride, padding):
    voxels = random_voxels()
    down = SparseConv3d(3, 4, kernel, stride, padding).double()
    up = InverseConv3d(4, 2, kernel, stride, padding, bias=True).double()
    coarse = down(voxels)
    result = up(coarse, voxels)
    want = F.conv_transpose3d(
        dense(coarse), up.weight.permute(4, 0, 1, 2, 3), stride=up.kernel.stride
    )
    want = F.pad(want, [0, 10] * 3)  # cells beyond the last window have no pair
    low = up.kernel.padding
    want = want[:, :, low[0] :, low[1] :, low[2] :] + up.bias.view(1, -1, 1, 1, 1)
    torch.testing.assert_close(result.features, at(want, voxels.coords))
    assert result.coords is voxels.coords


@pytest.mark.parametrize("training", [True, False])
def test_gradients(training):
    voxels = random_voxels(12, 2)
    same = SubMConv3d(2, 3, bias=True).double().train(training)
    down = SparseConv3d(3, 2, 3, 2, 1).double().train(training)
    up = InverseConv3d(2, 2, 3, 2, 1).double().train(training)

    def run(features, *_):
        fine = same(voxels.with_features(features))
        return up(down(fine), fine).features

    weights = [*same.parameters(), *down.parameters(), *up.parameters()]
    features = voxels.features.clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (features, *weights))


def test_layers_on_the_same_coordinates_share_rule_books(monkeypatch):
    voxels = random_voxels()
    made = []
    build = sparse_rules._build
    monkeypatch.setattr(sparse_rules, "_build", lambda *a: made.append(a[1]) or build(*a))
    block = SparseResidualBlock(3).double()
    inner = block(block(voxels))
    first = SparseConv3d(3, 3, 3, 2, 1).double()(inner)
    second = SparseConv3d(3, 3, 3, 2, 1).double()(voxels)
    assert len(made) == 2
    assert first.coords is second.coords
    assert first.cache is second.cache
    assert first.cache is not voxels.cache


@pytest.mark.parametrize("training", [True, False])
def test_no_voxels_give_no_voxels_and_zero_gradients(training):
    voxels = random_voxels(0)
    same = SubMConv3d(3, 4, bias=True).double().train(training)
    down = SparseConv3d(4, 5, 3, 2, 1, bias=True).double().train(training)
    up = InverseConv3d(5, 2, 3, 2, 1, bias=True).double().train(training)
    fine = same(voxels)
    result = up(down(fine), fine)
    assert result.features.shape == (0, 2)
    assert down(fine).spatial_shape == (3, 4, 3)
    result.features.sum().backward()
    for parameter in (*same.parameters(), *down.parameters(), *up.parameters()):
        assert not parameter.grad.any()


def test_voxels_that_no_output_sees():
    # z = 6 of 7: kernel 2, stride 4 looks at z = 0, 1 and 4, 5
    coords = torch.tensor([[0, 6, 0, 0], [0, 6, 1, 1]], dtype=torch.int32)
    voxels = SparseVoxels(torch.randn(2, 3), coords, (7, 2, 2), 1)
    down = SparseConv3d(3, 4, (2, 1, 1), (4, 1, 1))
    up = InverseConv3d(4, 3, (2, 1, 1), (4, 1, 1))
    coarse = down(voxels)
    assert coarse.features.shape == (0, 4)
    back = up(coarse, voxels)
    assert torch.equal(back.features, torch.zeros(2, 3))
    back.features.sum().backward()
    assert not up.weight.grad.any()


def test_rows_may_be_permuted_and_batches_joined():
    voxels = random_voxels(60)
    net = torch.nn.Sequential(
        SparseConvBlock(SubMConv3d(3, 4)), SparseConvBlock(SparseConv3d(4, 4, 3, 2, 1))
    )
    net.double().eval()
    whole = dense(net(voxels))
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(dense(net(voxels.take(rows))), whole)
    for frame in range(2):
        one = voxels.take((voxels.coords[:, 0] == frame).nonzero()[:, 0])
        coords = one.coords.clone()
        coords[:, 0] = 0
        one = SparseVoxels(one.features, coords, SHAPE, 1)
        torch.testing.assert_close(dense(net(one))[0], whole[frame])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_convolved_in_float(dtype):
    voxels = random_voxels(dtype=torch.float32)
    conv = SubMConv3d(3, 4, bias=True)
    want = conv(voxels).features
    got = conv(voxels.with_features(voxels.features.to(dtype))).features
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), want, atol=0.03, rtol=0.02)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(conv(voxels).features, want)


def test_non_contiguous_features():
    voxels = random_voxels(channels=6)
    conv = SubMConv3d(3, 4).double()
    strided = voxels.features[:, ::2]
    torch.testing.assert_close(
        conv(voxels.with_features(strided)).features,
        conv(voxels.with_features(strided.contiguous())).features,
    )


def test_residual_block_by_hand():
    """One voxel sees its own centre weights only."""
    coords = torch.zeros(1, 4, dtype=torch.int32)
    voxels = SparseVoxels(torch.tensor([[1.0, -2.0]]), coords, (1, 1, 1), 1)
    block = SparseResidualBlock(2, eps=0.0).eval()
    with torch.no_grad():
        for conv in (block.conv1, block.conv2):
            conv.weight[:, 1, 1, 1] = torch.tensor([[1.0, 1.0], [0.0, -1.0]])
            conv.bias.copy_(torch.tensor([2.0, 0.5]))
    # conv1: (1 - 2 + 2, 2 + 0.5) = (1, 2.5); conv2: (3.5 + 2, -2.5 + 0.5); plus the input
    torch.testing.assert_close(block(voxels).features, torch.tensor([[6.5, 0.0]]))


def test_misuse_is_refused_by_name():
    voxels = random_voxels()
    with pytest.raises(ValueError, match=r"SubMConv3d: kernel sizes must be odd, got \(3, 2, 3\)"):
        SubMConv3d(3, 4, (3, 2, 3))
    with pytest.raises(ValueError, match="SparseConv3d: widths, kernel sizes and strides"):
        SparseConv3d(3, 4, 3, 0)
    with pytest.raises(ValueError, match=r"SubMConv3d: features must be \(N, 5\), got \(40, 3\)"):
        SubMConv3d(5, 4)(voxels)
    with pytest.raises(ValueError, match=r"grid of \(5, 7, 6\) cells .* too small for kernel"):
        SparseConv3d(3, 4, 6).double()(voxels)
    down, up = SparseConv3d(3, 3, 3, 2, 1).double(), InverseConv3d(3, 3, 3, 2, 1).double()
    coarse = down(voxels)
    with pytest.raises(ValueError, match="InverseConv3d: voxels must keep the coordinates"):
        up(coarse.take(torch.arange(coarse.num_voxels)), voxels)


@needs_spconv
@only_spconv
def test_more_cells_than_spconv_can_number_are_refused():
    coords = torch.zeros(1, 4, dtype=torch.int32)
    huge = SparseVoxels(torch.zeros(1, 3), coords, (2, 40000, 40000), 1)
    with pytest.raises(ValueError, match="3200000000 cells in a batch are more than"):
        rule_book(huge, Kernel((3, 3, 3), submanifold=True))


CUDA = torch.device("cuda")


@only_ours
def test_without_spconv_ours_convolve_everywhere(monkeypatch, new_look):
    monkeypatch.setitem(sys.modules, "spconv", None)
    assert not sparse_rules._spconv_convolves_on(CUDA)
    coarse = SparseConv3d(4, 4, 3, 2).double()(SubMConv3d(3, 4).double()(random_voxels()))
    coarse.features.sum().backward()


@needs_spconv
@only_ours
@pytest.mark.parametrize("cpu_only", [False, True])
def test_spconv_convolves_on_gpus_where_it_has_their_kernels(monkeypatch, new_look, cpu_only):
    import spconv.cppconstants

    monkeypatch.setattr(spconv.cppconstants, "CPU_ONLY_BUILD", cpu_only)
    assert sparse_rules._spconv_convolves_on(CUDA) != cpu_only
    assert not sparse_rules._spconv_convolves_on(torch.device("cpu"))


@needs_spconv
@only_ours
def test_spconv_that_cannot_be_loaded_is_named(monkeypatch, new_look):
    monkeypatch.setitem(sys.modules, "spconv.pytorch", None)
    with pytest.raises(UserError, match="spconv cannot be loaded .*pip install spconv-cu.* or un"):
        sparse_rules._spconv_convolves_on(CUDA)
    with pytest.raises(ImportError):
        sparse_rules._spconv_convolves_on(CUDA)


@pytest.mark.gpu
def test_a_gpu_convolves_as_the_cpu_does(engine):
    same, down, up = SubMConv3d(8, 16), SparseConv3d(16, 8, 3, 2, 1), InverseConv3d(8, 4, 3, 2, 1)
    net = torch.nn.ModuleList([same, down, up])

    def run(device):
        cells = random_voxels(100, 8, dtype=torch.float32)
        features = cells.features.to(device).requires_grad_()
        fine = same(SparseVoxels(features, cells.coords.to(device), SHAPE, 2))
        result = up(down(fine), fine).features
        leaves = [features, *net.parameters()]
        grads = torch.autograd.grad(result.square().sum(), leaves)
        return [value.cpu() for value in (result, *grads)]

    wanted = run("cpu")
    net.cuda()
    for got, want in zip(run("cuda"), wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4 * want.abs().max().item(), rtol=1e-4)


@only_ours  # spconv's products vary with the number of pairs
@pytest.mark.parametrize("channels", [8, 32])
def test_a_row_does_not_depend_on_other_frames(channels):
    """Bit for bit: a few pairs of a weight and many are multiplied alike."""
    torch.manual_seed(0)
    down = SparseConv3d(channels, channels, 3, 2, 1)
    up = InverseConv3d(channels, channels, 3, 2, 1)
    same = SubMConv3d(channels, channels)
    voxels = random_voxels(300, channels, batch_size=3, dtype=torch.float32)

    def run(voxels):
        return same(up(down(voxels), voxels)).features

    whole = run(voxels)
    for frame in range(3):
        rows = (voxels.coords[:, 0] == frame).nonzero()[:, 0]
        one = voxels.take(rows)
        coords = one.coords.clone()
        coords[:, 0] = 0
        alone = SparseVoxels(one.features, coords, SHAPE, 1)
        assert torch.equal(run(alone), whole[rows])


def test_largest_cells_of_a_large_grid():
    shape = (2, 30000, 30000)  # 1.8e9 cells: products pass 2^30
    corner = torch.tensor([[0, 1, 29999, 29999], [0, 1, 29999, 29998]], dtype=torch.int32)
    voxels = SparseVoxels(torch.randn(2, 3, dtype=torch.float64), corner, shape, 1)
    conv = SubMConv3d(3, 4).double()
    shift = torch.tensor([0, 0, 29990, 29990], dtype=torch.int32)
    small = SparseVoxels(voxels.features, corner - shift, (2, 10, 10), 1)
    torch.testing.assert_close(conv(voxels).features, conv(small).features)


def test_kernel_offsets_are_ordered_z_y_x():
    """A neighbour at +1 along one axis meets the weight one after the centre on that axis."""
    for axis, offset in itertools.product(range(3), (-1, 1)):
        coords = torch.full((2, 4), 2, dtype=torch.int32)
        coords[:, 0] = 0
        coords[1, 1 + axis] += offset
        voxels = SparseVoxels(torch.tensor([[0.0], [1.0]]), coords, (5, 5, 5), 1)
        conv = SubMConv3d(1, 1)
        with torch.no_grad():
            conv.weight.copy_(torch.arange(27.0).view(1, 3, 3, 3, 1))
        place = 13 + offset * (9, 3, 1)[axis]
        assert conv(voxels).features[0].item() == place


@pytest.mark.parametrize("bias", [True, False])
def test_norms_become_part_of_the_weights_without_gradients(bias):
    voxels = random_voxels()
    net = torch.nn.Sequential(
        SparseConvBlock(SubMConv3d(3, 4, bias=bias)),
        SparseResidualBlock(4, bias=bias),
        SparseSkipBlock(4),
        SparseConvBlock(SparseConv3d(4, 2, 3, 2, 1, bias=bias)),
    ).double()
    up = SparseConvBlock(InverseConv3d(2, 3, 3, 2, 1, bias=bias)).double()
    for norm in (m for m in [*net.modules(), *up.modules()] if isinstance(m, RowBatchNorm)):
        for value in (norm.weight, norm.bias, norm.running_mean):
            torch.nn.init.normal_(value)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    net.eval(), up.eval()
    want = up(net(voxels), net[1](net[0](voxels)))
    with torch.no_grad():
        got = up(net(voxels), net[1](net[0](voxels)))
    assert want.features.requires_grad
    torch.testing.assert_close(got.features, want.features)


@pytest.mark.parametrize("make", [SparseResidualBlock, SparseSkipBlock])
def test_blocks_leave_what_goes_in(make):
    voxels = random_voxels(channels=4)
    before = voxels.features.clone()
    block = make(4).double().eval()
    with torch.no_grad():
        result = block(voxels)
    assert torch.equal(voxels.features, before)
    assert not torch.equal(result.features, before)
