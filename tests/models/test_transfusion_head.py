"""TransFusionHead: queries, attention, assignment, losses and decoding, by hand and as a whole."""

import math
from dataclasses import replace

import pytest
import torch

from perception3d.models.heads import (
    BevGrid,
    HungarianTargets,
    QueryCode,
    QueryRule,
    TransFusionDecoder,
    TransFusionHead,
    TransFusionLayers,
    TransFusionLoss,
    TransFusionOutput,
)
from perception3d.models.heads.transfusion_attention import QueryAttention, local_bias
from perception3d.models.heads.transfusion_queries import find_peaks, pick_queries
from perception3d.models.heads.transfusion_targets import bottom_iou
from perception3d.structures import Boxes3D, Targets

CLASSES = ("car", "bus", "cone")
GRID = BevGrid((1.0, 1.0), (-4.0, -3.0, -1.0, 4.0, 3.0, 1.0))
NET = dict(channels=16, heads=4, feedforward=24, branch_channels=8)
VARIANTS = {
    "openpcdet": dict(),
    "dsvt": dict(
        iou=True,
        bias_before_norm=True,
        transposed=True,
        height="top",
        local_radius=2,
        local_border="wrap",
    ),
    "scatterformer": dict(iou=True, bias_before_norm=True, local_radius=2),
}


def build(proposals: int = 5, layers: dict | None = None, **options) -> TransFusionHead:
    torch.manual_seed(0)
    settings = TransFusionLayers(**{**NET, **(layers or {})})
    rule = QueryRule(proposals, ("cone",))
    return TransFusionHead(4, CLASSES, GRID, rule, settings, **options)


def frame(rows: list, labels: list) -> Targets:
    boxes = torch.tensor(rows, dtype=torch.float32).view(-1, 9)
    return Targets(Boxes3D(boxes), torch.tensor(labels).long(), torch.ones(len(labels)).long())


def output_of(codes: list, logits: list, labels: list, heat: float = 1.0) -> TransFusionOutput:
    """One frame from codes (Q, 10) and class logits (Q, C)."""
    parts = torch.tensor(codes, dtype=torch.float32).t()[None].requires_grad_()
    center, height, dim, rot, vel = parts.split([2, 1, 3, 2, 2], dim=1)
    return TransFusionOutput(
        dense_heatmap=torch.zeros(1, 3, 6, 8, requires_grad=True),
        query_labels=torch.tensor([labels]),
        query_scores=torch.full((1, 3, len(labels)), heat),
        center=center,
        height=height,
        dim=dim,
        rot=rot,
        vel=vel,
        heatmap=torch.tensor([logits]).transpose(1, 2).requires_grad_(),
    )


# A unit cube in the middle of cell (x, y), looking along x, at rest.
def cube(x: float, y: float) -> list[float]:
    return [x + 0.5, y + 0.5, 0, 0, 0, 0, 0, 1, 0, 0]


def test_peaks_by_hand():
    heat = torch.tensor(
        [
            [0.9, 0.1, 0.1, 0.1],
            [0.1, 0.2, 0.3, 0.1],
            [0.1, 0.1, 0.1, 0.1],
        ]
    )
    maps = heat.expand(1, 2, 3, 4)
    found = find_peaks(maps, torch.tensor([False, True]))
    # the border is never a peak, and 0.2 has a higher neighbour
    assert found[0, 0].nonzero().tolist() == [[1, 2]]
    assert torch.equal(found[0, 1], heat)


def test_queries_come_by_heat_then_class_then_cell():
    logits = torch.full((1, 2, 4, 4), -9.0)
    logits[0, 0, 1, 1] = logits[0, 0, 2, 2] = 1.0  # neighbours of equal heat are both peaks
    logits[0, 1, 3, 0] = 1.0
    logits[0, 1, 0, 2] = 2.0
    found = pick_queries(logits, torch.tensor([False, True]), 4)
    assert found.labels.tolist() == [[1, 0, 0, 1]]
    assert found.cells.tolist() == [[2, 5, 10, 12]]
    at = torch.tensor([1.0, 2.0]).sigmoid().tolist()
    assert found.scores[0, 0].tolist() == pytest.approx([0, at[0], at[0], 0])
    assert found.scores[0, 1, [0, 3]].tolist() == pytest.approx([at[1], at[0]])


def test_cells_of_a_square_by_hand():
    def held(cell: int, shape: tuple[int, int], wrap: bool) -> list[int]:
        bias = local_bias(torch.tensor([[cell]]), shape, 1, wrap=wrap)
        return bias[0, 0].exp().round().int().tolist()

    assert held(0, (2, 3), wrap=False) == [4, 2, 0, 2, 1, 0]
    # -4, -3, -2 and -1 lie before the map; 2 is the end of the row, one before the next
    assert held(0, (2, 3), wrap=True) == [1, 1, 1, 1, 1, 0]
    assert held(4, (3, 3), wrap=True) == [1] * 9


def test_a_key_that_is_there_twice_counts_twice():
    torch.manual_seed(0)
    attention = QueryAttention(8, 2, 0.0).eval()
    queries, keys = torch.randn(1, 2, 8), torch.randn(1, 3, 8)
    counts = torch.tensor([[[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]]])
    found = attention(queries, keys, counts.log())
    assert torch.allclose(found, attention(queries, keys[:, [0, 0, 1]]), atol=1e-6)


def test_codes_there_and_back():
    boxes = torch.tensor([[1.0, -2.0, 0.5, 4.0, 2.0, 1.5, 0.7, 3.0, -1.0]])
    for height, z in (("center", 0.5), ("top", 1.25)):
        code = QueryCode(GRID, height)
        codes = code.encode(boxes)
        assert codes[0, :3].tolist() == pytest.approx([5.0, 1.0, z])
        assert codes[0, 6:].tolist() == pytest.approx([math.sin(0.7), math.cos(0.7), 3, -1])
        assert torch.allclose(code.decode(codes), boxes, atol=1e-6)


def test_bottom_iou_by_hand():
    box = torch.tensor([[0.0, 0, 0, 2, 2, 2, 0]])
    other = torch.tensor([[0.0, 0, 0, 2, 2, 1, 0], [0, 0, 1, 2, 2, 2, 0], [5, 0, 0, 1, 1, 1, 0]])
    # from one bottom: the lower height; raised by 1: 1 of 3
    assert bottom_iou(box, other)[0].tolist() == pytest.approx([0.5, 1 / 3, 0])


def test_costs_by_hand():
    output = output_of([cube(4, 3), cube(0, 0)], [[2.0, 0, 0], [0, 0, 0]], [0, 0])
    code, maker = QueryCode(GRID), HungarianTargets()
    boxes = torch.tensor([[0.5, 0.5, 0, 1, 1, 1, 0, 0, 0]])
    predicted = code.decode(output.codes)[0].detach()
    overlaps = bottom_iou(predicted, boxes)
    assert overlaps[:, 0].tolist() == pytest.approx([1, 0])
    cost = maker.costs(
        predicted, output.heatmap[0].detach(), boxes, torch.tensor([0]), code, overlaps
    )
    p = 1 / (1 + math.exp(-2.0))
    said = -math.log(p) * 0.25 * (1 - p) ** 2 + math.log(1 - p) * 0.75 * p**2
    half = math.log(2) * 0.25 * (0.25 - 0.75)
    distance = 4 / 8 + 3 / 6
    assert cost[:, 0].tolist() == pytest.approx(
        [0.15 * said - 0.25, 0.15 * half + 0.25 * distance], rel=1e-5
    )


def test_every_box_gets_the_query_that_makes_the_sum_least():
    # Both boxes would like query 0 best; the sum is least if the first takes query 2.
    head = build()
    output = output_of([cube(4, 3), cube(7, 5), cube(2, 3)], [[0.0, 0, 0]] * 3, [0, 0, 0])
    targets = frame([[-0.4, 0.5, 0, 1, 1, 1, 0, 0, 0], [0.6, 0.5, 0, 1, 1, 1, 0, 1, 2]], [2, 1])
    assigned = head.assign(output, [targets])
    assert assigned.labels.tolist() == [[1, 3, 2]]
    assert assigned.mask.tolist() == [[True, False, True]]
    assert assigned.codes[0, 0].tolist() == pytest.approx([4.6, 3.5, 0, 0, 0, 0, 0, 1, 1, 2])
    assert not assigned.codes[0, 1].any()
    assert assigned.overlaps[0].tolist() == pytest.approx([0.9 / 1.1, 0, 0])
    peaks = (assigned.heatmap == 1).nonzero().tolist()
    assert peaks == [[0, 1, 3, 4], [0, 2, 3, 3]]


def test_more_boxes_than_queries():
    output = output_of([cube(4, 3)], [[0.0, 0, 0]], [0])
    rows = [[x, 0.5, 0, 1, 1, 1, 0, 0, 0] for x in (-3.0, 0.5, 3.0)]
    assigned = build().assign(output, [frame(rows, [0, 1, 2])])
    assert assigned.labels.tolist() == [[1]]


def test_boxes_that_take_no_part():
    rows = [
        [9.0, 0, 0, 1, 1, 1, 0, 0, 0],  # beyond the map
        [0.0, 0, 0, 0, 1, 1, 0, 0, 0],  # no length
        [math.nan, 0, 0, 1, 1, 1, 0, 0, 0],
        [0.0, 0, 0, 1, 1, 1, 0, 0, 0],  # no class
    ]
    head = build()
    assigned = head.assign(output_of([cube(4, 3)], [[0.0] * 3], [0]), [frame(rows, [0, 0, 0, 3])])
    assert not assigned.mask.any()
    assert not assigned.heatmap.any()


def test_losses_by_hand():
    weights = TransFusionLoss(
        heatmap_weight=2.0, class_weight=3.0, box_weight=4.0, iou_weight=5.0, diou_weight=6.0
    )
    output = output_of([cube(4, 3), cube(0, 0)], [[0.0, 0, 0]] * 2, [0, 0])
    output = replace(output, iou=torch.full((1, 1, 2), 0.5))
    targets = frame([[0.5, 0.5, 0.25, 2.0, 1.0, 1.0, 0, 4.0, math.nan]], [1])
    losses = build(loss=weights).loss(output, [targets])
    assert set(losses) == {f"loss_{name}" for name in ("heatmap", "class", "box", "iou", "diou")}
    # z 0.25, log 2, and 0.2 x velocity 4; no target for vy
    assert losses["loss_box"].item() == pytest.approx(4 * (0.25 + math.log(2) + 0.8), rel=1e-5)
    # p = 1/2: one hit of alpha 0.25, five misses of 0.75
    wanted = math.log(2) / 4 * (0.25 + 5 * 0.75)
    assert losses["loss_class"].item() == pytest.approx(3 * wanted, rel=1e-5)
    iou = 0.75 / (2 + 1 - 0.75)
    assert losses["loss_iou"].item() == pytest.approx(5 * abs(0.5 - (2 * iou - 1)), rel=1e-5)
    diou = iou - 0.25**2 / (2**2 + 1 + 1.25**2)
    assert losses["loss_diou"].item() == pytest.approx(6 * (1 - diou), rel=1e-5)
    # the other IoU takes z for the bottoms of boxes: heights of unlike boxes overlap otherwise
    taller = frame([[0.5, 0.5, 0.25, 1.0, 1.0, 2.0, 0, 0, 0]], [1])
    for of_assignment, iou in ((False, 1 / 2), (True, 0.75 / 2.25)):
        made = TransFusionLoss(iou_of_assignment=of_assignment, iou_weight=1.0)
        found = build(loss=made).loss(output, [taller])["loss_iou"].item()
        assert found == pytest.approx(abs(0.5 - (2 * iou - 1)), rel=1e-5)


def test_decoding_by_hand():
    codes = [
        [4.5, 3.0, 1.0, math.log(4), math.log(2), math.log(1.5), 1.0, 0.0, 3.0, -1.0],
        cube(1, 1),
        cube(99, 1),
    ]
    output = output_of(codes, [[0.0, 5.0, 5.0], [0, 0, 2.0], [9.0, 9, 9]], [0, 2, 1], heat=0.5)
    (found,) = build().decode(output)
    # by score; the third centre is 95 m away
    assert found.labels.tolist() == [2, 0]
    assert found.scores.tolist() == pytest.approx([0.5 / (1 + math.exp(-2)), 0.25])
    assert found.boxes.tensor[1].tolist() == pytest.approx(
        [0.5, 0, 1, 4, 2, 1.5, math.pi / 2, 3, -1]
    )
    output = replace(output, iou=torch.tensor([[[0.62, -1.5, 1.0]]]))
    (found,) = build(decoder=TransFusionDecoder(iou_rectifier=0.5)).decode(output)
    assert found.scores.tolist() == pytest.approx([math.sqrt(0.25 * 0.81), 0])
    (found,) = build(decoder=TransFusionDecoder(score_threshold=0.3)).decode(output)
    assert found.labels.tolist() == [2]


def test_duplicates_are_dropped_in_the_named_classes_only():
    output = output_of(
        [cube(4, 3)] * 4, [[0.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0], [0, 0, 2.0]], [0, 0, 2, 2]
    )
    (found,) = build(decoder=TransFusionDecoder(iou_threshold={"cone": 0.2})).decode(output)
    assert found.labels.tolist() == [2, 0, 0]
    assert found.scores[0].item() == pytest.approx(1 / (1 + math.exp(-2)))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_batch_equals_its_frames_one_by_one(name: str):
    head = build(layers=VARIANTS[name]).eval()
    bev = torch.randn(2, 4, 6, 8)
    with torch.no_grad():
        whole, parts = head(bev), [head(part) for part in bev.split(1)]
    for column, value in vars(whole).items():
        if value is not None:
            alone = torch.cat([getattr(part, column) for part in parts])
            assert torch.allclose(value, alone, atol=1e-5), column
    for number, part in enumerate(parts):
        (alone,) = head.decode(part)
        found = head.decode(whole)[number]
        assert torch.equal(found.labels, alone.labels)
        assert torch.allclose(found.boxes.tensor, alone.boxes.tensor, atol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_without_boxes_are_finite_and_reach_every_parameter(name: str):
    head = build(layers=VARIANTS[name], loss=TransFusionLoss(diou_weight=0.5))
    losses = head.loss(head(torch.zeros(2, 4, 6, 8)), [frame([], []), frame([], [])])
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert losses["loss_box"] == losses["loss_diou"] == 0
    for parameter, weight in head.named_parameters():
        assert weight.grad is not None, parameter
        assert weight.grad.isfinite().all(), parameter


@pytest.mark.parametrize("name", VARIANTS)
def test_training_lowers_the_loss_and_moves_every_parameter(name: str):
    head = build(layers={**VARIANTS[name], "dropout": 0.0})
    optim = torch.optim.Adam(head.parameters(), 1e-3)
    bev = torch.randn(2, 4, 6, 8)
    rows = [[0.3, 0.4, 0, 2, 1, 1, 0.3, 1, 0], [-2.2, 1.4, 0.2, 1, 1, 1, 1, 0, 1]]
    targets = [frame(rows, [0, 2]), frame(rows[:1], [1])]
    values = []
    for _ in range(5):
        optim.zero_grad()
        total = sum(head.loss(head(bev), targets).values())
        total.backward()
        values.append(total.item())
        optim.step()
    assert values[-1] < values[0]
    # A query that looks at itself alone has a weight of one, whatever query and key are.
    still = {"transformer.self_attention.qkv"} if VARIANTS[name].get("local_radius") else set()
    for parameter, weight in head.named_parameters():
        if parameter.rpartition(".")[0] not in still and "conv1.bias" not in parameter:
            assert weight.grad.any(), parameter


def test_the_transposed_network_is_the_plain_one_on_a_turned_map():
    plain = build(layers=dict(local_radius=1)).eval()
    turned = build(layers=dict(local_radius=1, transposed=True)).eval()
    turned.load_state_dict(plain.state_dict())
    with torch.no_grad():
        for module in turned.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.copy_(module.weight.transpose(2, 3).clone())
        bev = torch.randn(1, 4, 6, 8)
        expected, found = plain(bev), turned(bev)
    for column, value in vars(expected).items():
        if value is not None:
            assert torch.allclose(getattr(found, column), value, atol=1e-5), column


def test_heat_maps_start_near_one_in_ten():
    head = build().eval()
    with torch.no_grad():
        heat = head(torch.zeros(1, 4, 6, 8)).dense_heatmap.sigmoid()
    assert heat.mean().item() == pytest.approx(0.1, abs=0.03)


def test_under_autocast_places_and_losses_keep_their_digits():
    head = build(layers=VARIANTS["scatterformer"])
    with torch.autocast("cpu", torch.bfloat16):
        output = head(torch.randn(1, 4, 6, 8))
        losses = head.loss(output, [frame([[0, 0, 0, 1, 1, 1, 0, 0, 0]], [0])])
    assert output.center.dtype == torch.float32
    assert {value.dtype for value in losses.values()} == {torch.float32}


def test_frozen_parameters_are_the_projections_of_the_attentions():
    head = build()
    frozen = {id(parameter) for parameter in head.frozen_parameters()}
    names = {name for name, parameter in head.named_parameters() if id(parameter) in frozen}
    kinds = ("self_attention", "cross_attention")
    assert names == {
        f"transformer.{kind}.qkv.{part}" for kind in kinds for part in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(proposals=145), r"1..144 \(classes times cells\), got 145"),
        (dict(layers=dict(heads=3)), "multiple of heads"),
        (dict(layers=dict(local_border="mirror")), "local_border must be one of"),
        (dict(layers=dict(height="bottom")), "height must be one of"),
        (dict(decoder=TransFusionDecoder(iou_threshold={"kone": 0.2})), "did you mean 'cone'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_values_that_fit_nothing_are_refused():
    with pytest.raises(ValueError, match="10 entries"):
        TransFusionLoss(code_weights=[1.0])
    with pytest.raises(ValueError, match="unknown_velocity"):
        HungarianTargets(unknown_velocity="mean")
    with pytest.raises(ValueError, match="overlap must lie"):
        HungarianTargets(overlap=1.0)
    with pytest.raises(ValueError, match="center_range"):
        TransFusionDecoder(center_range=(0, 0, 1, 1))
    with pytest.raises(ValueError, match="iou_rectifier"):
        TransFusionDecoder(iou_rectifier=2.0)
    with pytest.raises(ValueError, match="3 x 3 cells"):
        TransFusionHead(4, CLASSES, BevGrid((4.0, 4.0), GRID.point_cloud_range), QueryRule(1, ()))
    with pytest.raises(ValueError, match="no class 'pedestrian'"):
        TransFusionHead(4, CLASSES, GRID)


def test_wrong_input_is_refused():
    head = build()
    with pytest.raises(ValueError, match="is the stride that of the neck"):
        head(torch.zeros(1, 4, 3, 4))
    with pytest.raises(ValueError, match="bev must be"):
        head(torch.zeros(1, 5, 6, 8))
    with pytest.raises(ValueError, match=r"one entry per frame \(2\), got 1"):
        head.loss(head(torch.zeros(2, 4, 6, 8)), [frame([], [])])
