"""Drawing surface: smooth lines by supersampling, crisp text on top."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from perception3d.visualization.colors import BACKGROUND, Color

SUPERSAMPLING = 3

Point = tuple[float, float]


@dataclass(frozen=True)
class _Text:
    at: Point
    text: str
    color: Color
    size: int
    anchor: str
    plate: Color | None
    yields: bool


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that Pillow carries, so that pictures look alike on every machine."""
    return ImageFont.load_default(size)


class Canvas:
    """Shapes are drawn enlarged and shrunk at the end; text is drawn at its own size, last.

    Coordinates are pixels of the finished picture, x right, y down, fractions allowed; integer
    coordinates are pixel corners.

    Args:
        image: (H, W, 3) uint8 RGB ground of the picture.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.height, self.width = image.shape[:2]
        enlarged = (self.width * SUPERSAMPLING, self.height * SUPERSAMPLING)
        self._image = Image.fromarray(image).resize(enlarged, Image.Resampling.NEAREST)
        self._draw = ImageDraw.Draw(self._image, "RGBA")
        self._texts: list[_Text] = []

    @staticmethod
    def blank(width: int, height: int, color: Color = BACKGROUND) -> "Canvas":
        """Return a canvas of one colour."""
        return Canvas(np.full((height, width, 3), color, dtype=np.uint8))

    def line(
        self, points: Sequence[Point], color: Color, width: float = 1.5, alpha: float = 1.0
    ) -> None:
        """Draw a polyline; width in pixels, alpha 0 (unseen) to 1."""
        self._draw.line(
            _enlarged(points), (*color, round(alpha * 255)), _thickness(width), joint="curve"
        )

    def polygon(
        self,
        points: Sequence[Point],
        outline: Color,
        width: float = 1.5,
        fill_alpha: float = 0.0,
    ) -> None:
        """Draw a closed outline, over an interior of the same colour at `fill_alpha`."""
        if fill_alpha > 0:
            self.shade(points, outline, fill_alpha)
        # one edge beyond the start: the first corner gets a joint as well
        self.line([*points, *points[:2]], outline, width)

    def shade(self, points: Sequence[Point], color: Color, alpha: float) -> None:
        """Fill a polygon without an outline."""
        self._draw.polygon(_enlarged(points), fill=(*color, round(alpha * 255)))

    def dashes(
        self, points: Sequence[Point], color: Color, width: float = 1.5, dash: float = 5.0
    ) -> None:
        """Draw a polyline as dashes with equal gaps, `dash` pixels each."""
        for whole in pairwise(points):
            # a line that leaves the picture may be a million dashes long
            shown = clip_line(whole[0], whole[1], self.width, self.height)
            if shown is None:
                continue
            start, end = shown
            length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
            # odd number of pieces: every corner shows a dash
            pieces = 2 * max(round(length / dash / 2), 0) + 1
            stops = np.linspace(np.asarray(start), np.asarray(end), pieces + 1)
            for piece in range(0, pieces, 2):
                self.line([tuple(stops[piece]), tuple(stops[piece + 1])], color, width)

    def disk(self, center: Point, radius: float, color: Color, alpha: float = 1.0) -> None:
        """Draw a filled circle."""
        self._draw.ellipse(self._circle(center, radius), fill=(*color, round(alpha * 255)))

    def ring(self, center: Point, radius: float, color: Color, width: float = 1.0) -> None:
        """Draw a circle line."""
        self._draw.ellipse(self._circle(center, radius), outline=color, width=_thickness(width))

    def rectangle(self, corner: Point, opposite: Point, color: Color, alpha: float = 1.0) -> None:
        """Fill an upright rectangle."""
        x0, y0, x1, y1 = _enlarged([corner, opposite])
        self._draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=(*color, round(alpha * 255)))

    def text(
        self,
        at: Point,
        text: str,
        color: Color,
        size: int = 14,
        anchor: str = "la",
        plate: Color | None = None,
        yields: bool = False,
    ) -> None:
        """Write one line, on a plate of a colour if one is given.

        Args:
            at: position of the anchor.
            text: what to write.
            color: of the letters.
            size: pixels.
            anchor: Pillow's two letters: l, m, r across; a, m, s (base line), d down.
            plate: colour of a box behind the letters.
            yields: leave the line out where it would cover an earlier one.
        """
        self._texts.append(_Text(at, text, color, size, anchor, plate, yields))

    def finish(self) -> NDArray[np.uint8]:
        """Return the picture (H, W, 3) uint8 RGB."""
        image = self._image.reduce(SUPERSAMPLING)
        draw = ImageDraw.Draw(image)
        taken: list[tuple[float, float, float, float]] = []
        for entry in self._texts:
            box = draw.textbbox(entry.at, entry.text, font(entry.size), entry.anchor)
            box = (box[0] - 3, box[1] - 2, box[2] + 2, box[3] + 2)
            if entry.yields and any(_overlap(box, other) for other in taken):
                continue
            taken.append(box)
            if entry.plate is not None:
                draw.rectangle(box, fill=entry.plate)
            draw.text(entry.at, entry.text, entry.color, font(entry.size), entry.anchor)
        return np.asarray(image).copy()

    @staticmethod
    def _circle(center: Point, radius: float) -> list[float]:
        x, y = center
        return _enlarged([(x - radius, y - radius), (x + radius, y + radius)])


def text_width(text: str, size: int) -> float:
    """Return how wide a line of text is, in pixels."""
    return font(size).getlength(text)


def clip_line(start: Point, end: Point, width: float, height: float) -> tuple[Point, Point] | None:
    """Return the part of a line inside (0, 0)-(width, height), None if there is none.

    Liang and Barsky, "A new concept and method for line clipping" (ACM TOG 1984).
    """
    enter, leave = 0.0, 1.0
    for origin, target, size in zip(start, end, (width, height), strict=True):
        span = target - origin
        if span == 0.0:
            if not 0.0 <= origin <= size:
                return None
            continue
        first, last = sorted((-origin / span, (size - origin) / span))
        enter, leave = max(enter, first), min(leave, last)
    if enter > leave:
        return None
    (x0, y0), (x1, y1) = start, end
    return (
        (x0 + enter * (x1 - x0), y0 + enter * (y1 - y0)),
        (x0 + leave * (x1 - x0), y0 + leave * (y1 - y0)),
    )


def _enlarged(points: Sequence[Point]) -> list[float]:
    return [float(value) * SUPERSAMPLING for point in points for value in point]


def _overlap(
    box: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _thickness(width: float) -> int:
    return max(1, round(width * SUPERSAMPLING))
