"""What a picture shows: boxes with their colours, and the words around them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perception3d.structures import Boxes3D, Detections, Sample
from perception3d.visualization.canvas import Canvas, text_width
from perception3d.visualization.colors import (
    BACKGROUND,
    GROUND_TRUTH,
    MUTED,
    PANEL,
    TEXT,
    Color,
    palette,
)

TITLE_HEIGHT = 52
LEGEND_ROW = 26
LEGEND_STRIP = 40

# Corner numbers of Boxes3D.corners: bottom 0-3, top 4-7, counter-clockwise from front left.
BOX_EDGES = (
    *((0, 1), (1, 2), (2, 3), (3, 0)),
    *((4, 5), (5, 6), (6, 7), (7, 4)),
    *((0, 4), (1, 5), (2, 6), (3, 7)),
)
FRONT_FACE = (0, 3, 7, 4)


@dataclass(frozen=True)
class BoxLayer:
    """Boxes drawn in one manner.

    Attributes:
        corners: (K, 8, 3) in the order of `Boxes3D.corners`, m.
        labels: (K,) class numbers.
        colors: K colours.
        scores: (K,), None for annotations.
        dashed: drawn dashed and without filling, to lie beside another layer.
    """

    corners: NDArray[np.float64]
    labels: NDArray[np.int64]
    colors: list[Color]
    scores: NDArray[np.float64] | None
    dashed: bool

    def __len__(self) -> int:
        return len(self.colors)

    def headings(self) -> NDArray[np.float64]:
        """Return (K, 2, 3) lines on the bottom face, from the centre to beyond the front edge."""
        bottom = self.corners[:, :4].mean(axis=1)
        front = self.corners[:, (0, 3)].mean(axis=1)
        return np.stack([bottom, bottom + 1.3 * (front - bottom)], axis=1)

    def moved(self, transform: NDArray[np.float64]) -> "BoxLayer":
        """Return the same boxes in another frame; transform: (4, 4)."""
        return replace(self, corners=self.corners @ transform[:3, :3].T + transform[:3, 3])

    def by_score(self) -> list[int]:
        """Return the rows by descending score: where labels crowd, the best one stays."""
        if self.scores is None:
            return list(range(len(self)))
        return [int(row) for row in np.argsort(-self.scores, kind="stable")]

    def label(self, row: int) -> str:
        """Return the text beside a box: its score, nothing for an annotation."""
        return "" if self.scores is None else f"{self.scores[row]:.2f}"


def box_layers(
    sample: Sample, classes: Sequence[str], detections: Detections | None
) -> list[BoxLayer]:
    """Arrange the boxes of a frame for drawing.

    Detections have their class's colour.  So have annotations where they are alone; beside
    detections they are white and dashed.  Boxes that are not finite are left out.

    Args:
        sample: frame; its targets may be None.
        classes: names that the labels count.
        detections: boxes found, None to show annotations only.
    """
    layers = []
    if sample.targets is not None:
        targets = sample.targets
        layers.append(
            _layer(targets.boxes, targets.labels.cpu().numpy(), None, classes, detections is None)
        )
    if detections is not None:
        scores = detections.scores.detach().cpu().double().numpy()
        layers.append(
            _layer(detections.boxes, detections.labels.cpu().numpy(), scores, classes, True)
        )
    return layers


def _layer(
    boxes: Boxes3D,
    labels: NDArray[np.int64],
    scores: NDArray[np.float64] | None,
    classes: Sequence[str],
    colored: bool,
) -> BoxLayer:
    exact = Boxes3D(boxes.tensor.detach().cpu().double())
    corners = exact.corners().numpy()
    keep = np.isfinite(corners).all(axis=(1, 2))
    shades = palette(classes)
    colors = [
        (shades[label] if 0 <= label < len(shades) else MUTED) if colored else GROUND_TRUTH
        for label in labels[keep]
    ]
    kept_scores = None if scores is None else scores[keep]
    return BoxLayer(corners[keep], labels[keep], colors, kept_scores, dashed=not colored)


def draw_title(
    canvas: Canvas, sample: Sample, layers: Sequence[BoxLayer], left: float = 0.0
) -> None:
    """Write frame token and counts on a strip along the top edge.

    Args:
        canvas: picture, at least `TITLE_HEIGHT` high.
        sample: frame shown.
        layers: boxes shown.
        left: where the strip begins, pixels.
    """
    canvas.rectangle((left, 0), (canvas.width, TITLE_HEIGHT), BACKGROUND, alpha=0.82)
    counts = summary(sample, layers)
    middle = TITLE_HEIGHT / 2
    room = canvas.width - left - 60 - text_width(counts, 18)
    canvas.text((left + 20, middle), _shortened(sample.token, room, 20), TEXT, 20, "lm")
    canvas.text((canvas.width - 20, middle), counts, MUTED, 18, "rm")


def summary(sample: Sample, layers: Sequence[BoxLayer]) -> str:
    """Count points and boxes in words."""
    counts = [f"{len(sample.points):,} points"]
    counts += [
        f"{len(layer)} {'annotated' if layer.scores is None else 'predicted'}" for layer in layers
    ]
    return "   ".join(counts)


def class_counts(classes: Sequence[str], layers: Sequence[BoxLayer]) -> list[str]:
    """Count the boxes of each class: "annotated / predicted" where both are shown."""
    return [
        " / ".join(str(int((layer.labels == label).sum())) for layer in layers)
        for label in range(len(classes))
    ]


def draw_legend(
    canvas: Canvas,
    at: tuple[float, float],
    classes: Sequence[str],
    layers: Sequence[BoxLayer],
    width: float = 220.0,
) -> float:
    """List the classes with their colours and counts on a panel.

    With annotations and detections both shown, counts read "annotated / predicted".

    Args:
        canvas: picture.
        at: upper left corner of the panel, pixels.
        classes: names that the labels count.
        layers: boxes shown.
        width: of the panel, pixels.

    Returns:
        Height of the panel, pixels.
    """
    x, y = at
    height = legend_height(classes, layers)
    canvas.rectangle(at, (x + width, y + height), PANEL, alpha=0.9)
    y += 10
    counts = class_counts(classes, layers)
    for name, color, count in zip(classes, palette(classes), counts, strict=True):
        middle = y + LEGEND_ROW / 2
        canvas.rectangle((x + 14, middle - 7), (x + 28, middle + 7), color)
        shade = TEXT if count.strip("0 /") else MUTED
        canvas.text((x + 40, middle), name.replace("_", " "), shade, 15, "lm")
        canvas.text((x + width - 14, middle), count, shade, 15, "rm")
        y += LEGEND_ROW
    if len(layers) > 1:
        for layer in layers:
            _line_sample(canvas, (x, y + LEGEND_ROW / 2), layer)
            y += LEGEND_ROW
    return height


def draw_legend_strip(canvas: Canvas, top: float, classes: Sequence[str]) -> None:
    """List the classes with their colours in one row, `LEGEND_STRIP` high, from edge to edge."""
    names = [name.replace("_", " ") for name in classes]
    gap = 56.0
    size = 15
    total = sum(text_width(name, size) + gap for name in names) - gap / 2
    while total > canvas.width - 20 and size > 8:
        size, gap = size - 1, gap - 4.0
        total = sum(text_width(name, size) + gap for name in names) - gap / 2
    x, middle = (canvas.width - total) / 2, top + LEGEND_STRIP / 2
    for name, color in zip(names, palette(classes), strict=True):
        canvas.rectangle((x, middle - 7), (x + 14, middle + 7), color)
        canvas.text((x + 22, middle), name, TEXT, size, "lm")
        x += text_width(name, size) + gap


def legend_height(classes: Sequence[str], layers: Sequence[BoxLayer]) -> float:
    """Return how high the panel of `draw_legend` is, in pixels."""
    return 20.0 + LEGEND_ROW * (len(classes) + (len(layers) if len(layers) > 1 else 0))


def _line_sample(canvas: Canvas, at: tuple[float, float], layer: BoxLayer) -> None:
    x, y = at
    name = "annotated" if layer.scores is None else "predicted"
    line = [(x + 10.0, y), (x + 32.0, y)]
    if layer.dashed:
        canvas.dashes(line, GROUND_TRUTH, 2.0)
    else:
        canvas.line(line, TEXT, 2.0)
    canvas.text((x + 40, y), name, TEXT, 15, "lm")


def _shortened(text: str, room: float, size: int) -> str:
    """Cut the middle out of a text that is too long for its room."""
    keep = len(text)
    shown = text
    while text_width(shown, size) > room and keep > 8:
        keep -= 2
        shown = text[: keep // 2] + "..." + text[-(keep // 2) :]
    return shown
