"""Boxes on camera images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perception3d.structures import Cameras, Detections, Sample
from perception3d.visualization.canvas import Canvas, Point
from perception3d.visualization.colors import BACKGROUND, TEXT
from perception3d.visualization.layers import (
    BOX_EDGES,
    FRONT_FACE,
    LEGEND_STRIP,
    TITLE_HEIGHT,
    BoxLayer,
    box_layers,
    draw_legend_strip,
    draw_title,
)

NEAR = 0.1  # m; nearer parts of a box are cut off: behind the camera a projection is meaningless

# Order in a mosaic as a driver sees it: ahead above, behind below.
_PLACES = (
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_LEFT",
    "CAM_BACK",
    "CAM_BACK_RIGHT",
)


def project(
    points: NDArray[np.float64],
    lidar_to_camera: NDArray[np.float64],
    intrinsics: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project LiDAR points into an image.

    Args:
        points: (..., 3) LiDAR frame, m.
        lidar_to_camera: (4, 4), camera axes x right, y down, z forward.
        intrinsics: (3, 3).

    Returns:
        Pixels (..., 2), NaN where the depth is not positive, and depths (...), m.
    """
    seen = points @ lidar_to_camera[:3, :3].T + lidar_to_camera[:3, 3]
    depth = seen[..., 2]
    image = seen @ intrinsics.T
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = image[..., :2] / image[..., 2:3]
    return np.where(depth[..., None] > 0, pixels, np.nan), depth


def clip_at_near_plane(
    lines: NDArray[np.float64], near: float = NEAR
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cut line segments where they pass behind the camera.

    Args:
        lines: (..., 2, 3) ends in camera coordinates, m.
        near: smallest depth that stays, m.

    Returns:
        The cut lines (..., 2, 3) and which of them are seen at all (...).
    """
    depth = lines[..., 2]
    start, end = lines[..., 0, :], lines[..., 1, :]
    span = depth[..., 1] - depth[..., 0]
    share = (near - depth[..., 0]) / np.where(span == 0, 1.0, span)
    crossing = start + share[..., None] * (end - start)
    cut = lines.copy()
    cut[..., 0, :] = np.where((depth[..., 0] < near)[..., None], crossing, start)
    cut[..., 1, :] = np.where((depth[..., 1] < near)[..., None], crossing, end)
    return cut, (depth >= near).any(axis=-1)


def draw_camera(
    cameras: Cameras, index: int, layers: Sequence[BoxLayer], width: int | None = None
) -> NDArray[np.uint8]:
    """Draw boxes over one image.

    Args:
        cameras: images and calibration; the boxes lie in the LiDAR frame these refer to.
        index: which camera.
        layers: boxes, from `perception3d.visualization.layers.box_layers`.
        width: of the picture in pixels, None for that of the image.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    image = _as_bytes(cameras, index)
    scale = 1.0 if width is None else width / image.shape[1]
    if scale != 1.0:
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    zoom = np.diag([scale, scale, 1.0])
    to_camera = cameras.lidar_to_camera[index].cpu().double().numpy()
    intrinsics = zoom @ cameras.intrinsics[index].cpu().double().numpy()
    canvas = Canvas(image)
    labels = []
    for layer in reversed(layers):
        for row in _far_to_near(layer, to_camera):
            anchor = _draw_box(canvas, layer, row, to_camera, intrinsics)
            if anchor is not None and layer.scores is not None:
                labels.append((anchor, layer.label(row), layer.colors[row]))
    canvas.text((12, 10), cameras.names[index], TEXT, 16, "la", plate=BACKGROUND)
    for anchor, text, color in reversed(labels):  # near ones first: they stay where it crowds
        canvas.text(anchor, text, BACKGROUND, 12, "ld", plate=color, yields=True)
    return canvas.finish()


def draw_cameras(
    sample: Sample,
    classes: Sequence[str],
    detections: Detections | None = None,
    width: int = 1920,
) -> NDArray[np.uint8]:
    """Draw all cameras of a frame side by side, three to a row, below a title.

    Args:
        sample: frame with cameras; its boxes and those found lie in the frame of `sample.points`,
            from which the augmentation is taken off before projection.
        classes: names that the labels count.
        detections: boxes found, None for annotations only.
        width: of the picture, pixels.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the sample has no cameras.
    """
    cameras = sample.cameras
    if cameras is None or not cameras.names:
        raise ValueError(f"draw_cameras: sample {sample.token} has no cameras")
    layers = box_layers(sample, classes, detections)
    back = np.linalg.inv(sample.augmentation.cpu().numpy())
    original = [layer.moved(back) for layer in layers]
    columns = min(3, len(cameras.names))
    order = sorted(
        range(len(cameras.names)),
        key=lambda v: _PLACES.index(cameras.names[v]) if cameras.names[v] in _PLACES else v,
    )
    tiles = [draw_camera(cameras, view, original, width // columns) for view in order]
    height, tile_width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    ground = np.full(
        (TITLE_HEIGHT + rows * height + LEGEND_STRIP, columns * tile_width, 3),
        BACKGROUND,
        dtype=np.uint8,
    )
    for place, tile in enumerate(tiles):
        top = TITLE_HEIGHT + place // columns * height
        left = place % columns * tile_width
        ground[top : top + height, left : left + tile_width] = tile
    canvas = Canvas(ground)
    draw_title(canvas, sample, layers)
    draw_legend_strip(canvas, canvas.height - LEGEND_STRIP, classes)
    bottom = TITLE_HEIGHT + rows * height
    for row in range(rows + 1):
        edge = TITLE_HEIGHT + row * height
        canvas.line([(0, edge), (canvas.width, edge)], BACKGROUND, 3.0)
    for column in range(1, columns):
        edge = column * tile_width
        canvas.line([(edge, TITLE_HEIGHT), (edge, bottom)], BACKGROUND, 3.0)
    return canvas.finish()


def _as_bytes(cameras: Cameras, index: int) -> NDArray[np.uint8]:
    image = cameras.images[index].permute(1, 2, 0).cpu()
    if image.is_floating_point():  # normalised for a network: stretch back to what can be seen
        low, high = image.min(), image.max()
        image = ((image - low) / (high - low).clamp_min(1e-6) * 255.0).round()
    return image.numpy().astype(np.uint8)


def _far_to_near(layer: BoxLayer, to_camera: NDArray[np.float64]) -> list[int]:
    centers = layer.corners.mean(axis=1)
    depth = centers @ to_camera[2, :3] + to_camera[2, 3]
    return [int(row) for row in np.argsort(-depth)]


def _draw_box(
    canvas: Canvas,
    layer: BoxLayer,
    row: int,
    to_camera: NDArray[np.float64],
    intrinsics: NDArray[np.float64],
) -> Point | None:
    """Draw one box; return where its label goes, None if the box is out of the picture."""
    corners = layer.corners[row] @ to_camera[:3, :3].T + to_camera[:3, 3]
    lines, seen = clip_at_near_plane(corners[np.array(BOX_EDGES)])
    if not seen.any():
        return None
    pixels = _pixels(lines, intrinsics)
    low, high = pixels[seen].min(axis=(0, 1)), pixels[seen].max(axis=(0, 1))
    if (high < 0).any() or low[0] > canvas.width or low[1] > canvas.height:
        return None
    color = layer.colors[row]
    front = corners[list(FRONT_FACE)]
    if not layer.dashed and (front[:, 2] >= NEAR).all():
        face = [tuple(corner) for corner in _pixels(front, intrinsics)]
        canvas.polygon(face, color, 1.5, fill_alpha=0.25)
    for line in pixels[seen]:
        ends = [tuple(line[0]), tuple(line[1])]
        if layer.dashed:
            canvas.dashes(ends, color, 1.2, dash=4.0)
        else:
            canvas.line(ends, color, 1.6)
    return float(max(low[0], 3.0)), float(max(low[1], 16.0)) - 3


def _pixels(points: NDArray[np.float64], intrinsics: NDArray[np.float64]) -> NDArray[np.float64]:
    image = points @ intrinsics.T
    return image[..., :2] / image[..., 2:3]
