"""CenterHead as a whole: shapes, losses by hand, initial weights, wrong input."""

import math

import pytest
import torch
from torch import nn

from perception3d.models.heads import (
    BevGrid,
    CenterDecoder,
    CenterHead,
    CenterHeadOutput,
    CenterLayers,
    CenterLoss,
    TaskOutput,
)
from perception3d.structures import Boxes3D, Targets

CLASSES = ("car", "bus", "cone")
GRID = BevGrid((1.0, 1.0), (-4.0, -3.0, -1.0, 4.0, 3.0, 1.0))


def build(tasks=(("car",), ("cone", "bus")), **options) -> CenterHead:
    torch.manual_seed(0)
    return CenterHead(5, CLASSES, GRID, tasks, **options)


def frame(rows: list, labels: list) -> Targets:
    boxes = torch.tensor(rows, dtype=torch.float32).view(-1, 9)
    return Targets(Boxes3D(boxes), torch.tensor(labels).long(), torch.ones(len(labels)).long())


def test_branches_of_every_task():
    head = build(layers=CenterLayers(iou=True, shared_channels=8))
    output = head(torch.randn(2, 5, 6, 8))
    assert output.batch_size == 2
    for task, classes in zip(output.tasks, (1, 2), strict=True):
        widths = {name: getattr(task, name).shape for name in vars(task)}
        wanted = dict(center=2, center_z=1, dim=3, rot=2, hm=classes, vel=2, iou=1)
        assert widths == {name: (2, width, 6, 8) for name, width in wanted.items()}
    plain = build(layers=CenterLayers(velocity=False, shared_channels=8))(torch.randn(1, 5, 6, 8))
    assert plain.tasks[0].vel is None
    assert plain.tasks[0].iou is None


def test_without_tasks_all_classes_share_one():
    assert build(tasks=None)(torch.randn(1, 5, 6, 8)).tasks[0].hm.shape == (1, 3, 6, 8)


def test_heat_maps_start_near_one_in_ten():
    head = build().eval()
    with torch.no_grad():
        heat = torch.cat([task.hm for task in head(torch.zeros(1, 5, 6, 8)).tasks], 1).sigmoid()
    assert heat.mean().item() == pytest.approx(0.1, abs=0.03)


def test_biases_before_norms_are_optional():
    def biased(head: CenterHead) -> set:
        blocks = [module for module in head.modules() if hasattr(module, "norm")]
        return {block.conv.bias is not None for block in blocks}

    assert biased(build()) == {False}
    head = build(layers=CenterLayers(bias_before_norm=True, norm_eps=1e-5, norm_momentum=0.1))
    assert biased(head) == {True}
    norms = [module for module in head.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


def output_of(head: CenterHead, value: float = 0.0, iou: float | None = None):
    tasks = []
    for names in head.tasks.tasks:
        maps = {
            name: torch.full((1, width, 6, 8), value, requires_grad=True)
            for name, width in head.layers.channels_of_branch(len(names)).items()
        }
        if iou is not None:
            maps["iou"] = torch.full((1, 1, 6, 8), iou, requires_grad=True)
        tasks.append(TaskOutput(**maps))
    return CenterHeadOutput(tuple(tasks))


def test_losses_by_hand():
    head = build(
        loss=CenterLoss(heatmap_weight=2.0, box_weight=3.0, iou_weight=4.0, diou=True),
        layers=CenterLayers(iou=True),
    )
    target = [0.25, 0.5, 0.3, 2.0, 1.0, 1.0, 0.0, 4.0, math.nan]
    output = output_of(head, iou=0.5)
    losses = head.loss(output, [frame([target], [0])])
    assert set(losses) == {"loss_heatmap", "loss_box", "loss_iou", "loss_diou"}
    # offsets 0.25 and 0.5, z 0.3, log 2, cos 1, 0.2 x velocity 4, and no target for vy
    box = 0.25 + 0.5 + 0.3 + math.log(2) + 1.0 + 0.2 * 4.0
    assert losses["loss_box"].item() == pytest.approx(3 * box, rel=1e-5)
    # zeros decode to a unit cube around the corner of the cell: shared 1 x 0.5 x 0.7
    iou = 0.35 / (2 + 1 - 0.35)
    assert losses["loss_iou"].item() == pytest.approx(4 * abs(0.5 - (2 * iou - 1)), rel=1e-5)
    diou = iou - (0.25**2 + 0.5**2 + 0.3**2) / (2.0**2 + 1.5**2 + 1.3**2)
    assert losses["loss_diou"].item() == pytest.approx(3 * (1 - diou), rel=1e-5)
    # p = 1/2 everywhere: log(2) / 4 times 1 at the centre and (1 - g)^4 elsewhere; the other
    # task has two empty maps
    gaussian = torch.zeros(6, 8)
    for y in range(1, 6):
        for x in range(2, 7):
            gaussian[y, x] = math.exp(-((x - 4) ** 2 + (y - 3) ** 2) * 0.72)
    total = 1 + ((1 - gaussian) ** 4).sum().item() + 2 * 48
    assert losses["loss_heatmap"].item() == pytest.approx(2 * total * math.log(2) / 4, rel=1e-5)


def test_losses_without_boxes_are_finite_and_reach_every_branch():
    head = build(loss=CenterLoss(diou=True), layers=CenterLayers(iou=True, shared_channels=8))
    bad = frame([[0, 0, 0, 0.0, 1, 1, 0, 0, 0]], [0])  # a box without length keeps a slot
    for targets in ([frame([], [])], [bad]):
        head.zero_grad()
        losses = head.loss(head(torch.randn(1, 5, 6, 8)), targets)
        sum(losses.values()).backward()
        assert all(value.isfinite() for value in losses.values())
        assert losses["loss_box"] == losses["loss_iou"] == losses["loss_diou"] == 0
        for name, parameter in head.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_code_weights_follow_their_codes():
    weights = [0.0] * 10
    weights[8] = 1.0
    head = build(loss=CenterLoss(box_weight=1.0, code_weights=weights))
    row = [0.0, 0, 0, 1, 1, 1, 0, 3.0, 5.0]
    losses = head.loss(output_of(head), [frame([row], [2])])
    assert losses["loss_box"].item() == 3.0


def test_loss_gradient_only_at_the_cells_of_boxes():
    head = build()
    output = output_of(head, value=0.3)
    head.loss(output, [frame([[1.2, -2.0, 0, 1, 1, 1, 0, 0, 0]], [1])])["loss_box"].backward()
    touched = output.tasks[1].dim.grad.abs().sum(dim=(0, 1)).nonzero()
    assert touched.tolist() == [[1, 5]]
    assert not output.tasks[0].dim.grad.any()


def test_losses_under_autocast_are_float32():
    head = build(layers=CenterLayers(shared_channels=8))
    bev = torch.randn(1, 5, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        output = head(bev)
        losses = head.loss(output, [frame([[0, 0, 0, 1, 1, 1, 0, 0, 0]], [0])])
    assert output.tasks[0].hm.dtype == torch.bfloat16
    assert {value.dtype for value in losses.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(tasks=(("car",), ("bus", "conne"))), "unknown class 'conne' .did you mean 'cone'"),
        (dict(loss=CenterLoss(code_weights=[1.0] * 8)), "must have 10 entries"),
        (dict(decoder=CenterDecoder(iou_rectifier=(0.5, 0.5))), r"per class \(3\), got 2"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_wrong_input_is_refused():
    head = build()
    with pytest.raises(ValueError, match="is the stride that of the neck"):
        head(torch.zeros(1, 5, 3, 4))
    with pytest.raises(ValueError, match="bev must be"):
        head(torch.zeros(1, 4, 6, 8))
    with pytest.raises(ValueError, match=r"one entry per frame \(2\), got 1"):
        head.loss(head(torch.zeros(2, 5, 6, 8)), [frame([], [])])


def test_settings_that_fit_nothing_are_refused():
    with pytest.raises(ValueError, match="8 entries, or 10"):
        CenterLoss(code_weights=[1.0])
    with pytest.raises(ValueError, match="kernel_size odd"):
        CenterLayers(kernel_size=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_targets_and_losses_are_those_of_the_cpu():
    head = build(loss=CenterLoss(diou=True), layers=CenterLayers(shared_channels=8)).eval()
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(20, 9, generator=generator) * 6 - 3
    rows[:, 3:6] = rows[:, 3:6].abs() + 0.2
    bev = torch.randn(1, 5, 6, 8, generator=generator)

    def run(device: str):
        output = head.to(device)(bev.to(device))
        targets = [frame(rows.tolist(), [0, 1, 2, 1] * 5).to(device)]
        return head.assign(output, targets), head.loss(output, targets)

    (targets, losses), (gpu_targets, gpu_losses) = run("cpu"), run("cuda")
    for cpu, gpu in zip(targets, gpu_targets, strict=True):
        assert torch.equal(cpu.cells, gpu.cells.cpu())
        assert torch.equal(cpu.mask, gpu.mask.cpu())
        assert torch.allclose(cpu.heatmap, gpu.heatmap.cpu(), atol=1e-6)
        assert torch.allclose(cpu.codes, gpu.codes.cpu(), atol=1e-5)
    for name, value in losses.items():
        assert gpu_losses[name].item() == pytest.approx(value.item(), rel=1e-3)
