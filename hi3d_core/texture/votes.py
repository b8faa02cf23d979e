"""What the views say about points of a surface: who sees a point, how well, in which colour.

A view's vote for a point weighs cos^4 of the angle between its ray and the normal, times how sure
it is to look at the surface there: nothing in front of it (z-buffer), and not beside a silhouette
or a depth edge, where a pixel may show something else (the background, or a part behind).

Letters: V views, P points, H and W the pictures' height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from scipy import ndimage

from ..datatypes import Mesh, OrbitViews
from ..raster import pixel_matrices, rasterize_triangles

_DEPTH_SCALE = 2  # the z-buffer has this many pixels a picture's pixel, along each axis
_OPAQUE = 0.95  # pixels with less coverage are edge pixels
_LEAST_COSINE = 0.05  # of the angle between ray and normal; below, a view does not count
_DEPTH_STEP = 6.0  # a jump in depth of more than this many pixels is an edge


@dataclass(frozen=True, eq=False)
class Witness:
    """The views, prepared for asking; made by `prepare_witness`.

    images (V, H, W, 3) over white and alphas (V, H, W); matrices (V, 3, 4) to (x z, y z, z) in
    pixels; positions (V, 3) of the cameras; depths (V, 2 H, 2 W) of the mesh, 0 where it isn't;
    trust (V, H, W) in [0, 1], 0 at edges; gains (V, 3) that level the pictures.
    """

    images: np.ndarray
    alphas: np.ndarray
    matrices: np.ndarray
    positions: np.ndarray
    depths: np.ndarray
    trust: np.ndarray
    gains: np.ndarray


def prepare_witness(mesh: Mesh, views: OrbitViews, feather_pixels: float) -> Witness:
    """Draw the mesh's depth into each view and find where its pixels can be trusted."""
    cameras = views.cameras.to("cpu")
    height, width = cameras.height, cameras.width
    fine = cameras.resized(_DEPTH_SCALE * width, _DEPTH_SCALE * height)
    alphas = views.alphas.detach().cpu().float().numpy()
    depths = np.empty((len(views), fine.height, fine.width), dtype=np.float32)
    trust = np.empty((len(views), height, width), dtype=np.float32)
    for view in range(len(views)):  # one at a time: the fragments are six times as large
        fragments = rasterize_triangles(mesh.vertices.cpu(), mesh.faces.cpu(), fine[[view]])
        depths[view] = fragments.depths[0].numpy()
        focal = float(fine.intrinsics[view, 0, 0])
        edges = depth_edges(depths[view], focal)
        blocks = edges.reshape(height, _DEPTH_SCALE, width, _DEPTH_SCALE)
        mostly = blocks.mean(axis=(1, 3)) >= 0.5
        trust[view] = edge_trust(mostly | (alphas[view] < _OPAQUE), feather_pixels)
    return Witness(
        images=np.ascontiguousarray(views.images.detach().cpu().float().numpy()),
        alphas=np.ascontiguousarray(alphas),
        matrices=pixel_matrices(cameras),
        positions=cameras.positions.double().numpy(),
        depths=depths,
        trust=trust,
        gains=np.ones((len(views), 3), dtype=np.float32),
    )


def depth_edges(depths: np.ndarray, focal: float) -> np.ndarray:
    """(H, W) whether the surface is missing or jumps at a pixel.

    depths: (H, W) z-depth, 0 for nothing. focal: in pixels. 1 / z is linear in the picture on any
    plane, so its second difference is nought there however steep the plane is.
    """
    empty = depths <= 0
    inverse = 1 / np.where(empty, np.nan, depths)
    limit = _DEPTH_STEP * inverse / focal
    edges = empty.copy()
    with np.errstate(invalid="ignore"):  # beside nothing there is no difference to speak of
        edges[1:-1] |= np.abs(np.diff(inverse, 2, axis=0)) > limit[1:-1]
        edges[:, 1:-1] |= np.abs(np.diff(inverse, 2, axis=1)) > limit[:, 1:-1]
    return edges


def edge_trust(edges: np.ndarray, feather_pixels: float) -> np.ndarray:
    """(H, W) float32 in [0, 1]: 0 at edge pixels, rising smoothly to 1 at `feather_pixels`.

    In parts that are too thin to get that far from their edges (a chair's legs) it rises to
    their middle, but stays lower, so that a better view of them wins.
    """
    distance = ndimage.distance_transform_edt(~edges)
    if edges.any():
        distance = np.minimum(distance, feather_pixels)
    else:
        distance = np.full(edges.shape, feather_pixels)
    window = 2 * int(np.ceil(feather_pixels)) + 1
    reach = np.maximum(ndimage.maximum_filter(distance, window), 1.0)
    share = np.clip((distance - 0.5) / (reach - 0.5), 0, 1)
    thickness = 0.4 + 0.6 * np.minimum(reach / feather_pixels, 1)
    return (share * share * (3 - 2 * share) * thickness).astype(np.float32)


@njit(cache=True, inline="always")
def _pixel_trust(trust, x, y):  # type: ignore[no-untyped-def]
    """Bilinear look-up at pixel coordinates (centres at .5), 0 outside."""
    height, width = trust.shape
    fx, fy = x - 0.5, y - 0.5
    x0, y0 = int(np.floor(fx)), int(np.floor(fy))
    if x0 < 0 or y0 < 0 or x0 + 1 >= width or y0 + 1 >= height:
        return 0.0
    tx, ty = fx - x0, fy - y0
    return (1 - ty) * ((1 - tx) * trust[y0, x0] + tx * trust[y0, x0 + 1]) + ty * (
        (1 - tx) * trust[y0 + 1, x0] + tx * trust[y0 + 1, x0 + 1]
    )


@njit(cache=True, inline="always")
def _share_in_front(depths, x, y, z, slack):  # type: ignore[no-untyped-def]
    """Bilinear share of the z-buffer's four nearest pixels with nothing before depth z."""
    height, width = depths.shape
    fx, fy = x * _DEPTH_SCALE - 0.5, y * _DEPTH_SCALE - 0.5
    x0, y0 = int(np.floor(fx)), int(np.floor(fy))
    if x0 < 0 or y0 < 0 or x0 + 1 >= width or y0 + 1 >= height:
        return 0.0
    tx, ty = fx - x0, fy - y0
    total = 0.0
    for dy in range(2):
        for dx in range(2):
            depth = depths[y0 + dy, x0 + dx]
            if depth <= 0 or z <= depth + slack:
                total += (ty if dy else 1 - ty) * (tx if dx else 1 - tx)
    return total


@njit(cache=True, inline="always")
def _cubic(t):  # type: ignore[no-untyped-def]
    """Weights of four samples around a place t in [0, 1) after the second (Catmull-Rom)."""
    return (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )


@njit(cache=True, inline="always")
def _look_up(image, alpha, x, y):  # type: ignore[no-untyped-def]
    """Bicubic colour at pixel coordinates without the white behind it, and its coverage."""
    height, width = alpha.shape
    fx, fy = x - 0.5, y - 0.5
    x0, y0 = int(np.floor(fx)), int(np.floor(fy))
    columns, rows = _cubic(fx - x0), _cubic(fy - y0)
    red, green, blue, cover = 0.0, 0.0, 0.0, 0.0
    for j in range(4):
        row = min(max(y0 - 1 + j, 0), height - 1)
        for i in range(4):
            column = min(max(x0 - 1 + i, 0), width - 1)
            weight = rows[j] * columns[i]
            red += weight * image[row, column, 0]
            green += weight * image[row, column, 1]
            blue += weight * image[row, column, 2]
            cover += weight * alpha[row, column]
    if cover < 0.5:
        return 0.0, 0.0, 0.0, 0.0
    white = 1.0 - cover
    return (red - white) / cover, (green - white) / cover, (blue - white) / cover, cover


@njit(cache=True)
def cast_vote(  # type: ignore[no-untyped-def]
    view, point, normal, images, alphas, matrices, positions, depths, trust, gains, vote
):
    """Write a view's colour, weight and certainty for a point into `vote` (5,).

    The certainty in [0, 1] says whether the view truly looks at the point, the weight also how
    squarely. Returns whether there is a vote.
    """
    dx = positions[view, 0] - point[0]
    dy = positions[view, 1] - point[1]
    dz = positions[view, 2] - point[2]
    toward = dx * normal[0] + dy * normal[1] + dz * normal[2]
    if toward <= 0.0:
        return False
    distance = np.sqrt(dx * dx + dy * dy + dz * dz)
    cosine = toward / distance
    if cosine <= _LEAST_COSINE:
        return False
    m = matrices[view]
    z = m[2, 0] * point[0] + m[2, 1] * point[1] + m[2, 2] * point[2] + m[2, 3]
    if z <= 1e-6:
        return False
    x = m[0, 0] * point[0] + m[0, 1] * point[1] + m[0, 2] * point[2] + m[0, 3]
    y = m[1, 0] * point[0] + m[1, 1] * point[1] + m[1, 2] * point[2] + m[1, 3]
    x, y = x / z, y / z
    certainty = _pixel_trust(trust[view], x, y)
    if certainty <= 0.0:
        return False
    # Within a pixel of the z-buffer a surface at this angle may come so much nearer.
    row = np.sqrt(m[0, 0] * m[0, 0] + m[0, 1] * m[0, 1] + m[0, 2] * m[0, 2])
    pixel = distance / (row * _DEPTH_SCALE)
    tangent = min(np.sqrt(max(1 - cosine * cosine, 0.0)) / cosine, 8.0)
    certainty *= _share_in_front(depths[view], x, y, z, pixel * (1.0 + 1.5 * tangent))
    # Grazing rays count less and less, down to not at all.
    certainty *= min((cosine - _LEAST_COSINE) / 0.1, 1.0)
    if certainty < 1e-3:
        return False
    red, green, blue, cover = _look_up(images[view], alphas[view], x, y)
    if cover <= 0.0:
        return False
    vote[0] = min(max(red * gains[view, 0], 0.0), 1.0)
    vote[1] = min(max(green * gains[view, 1], 0.0), 1.0)
    vote[2] = min(max(blue * gains[view, 2], 0.0), 1.0)
    vote[3] = certainty * cosine**4
    vote[4] = certainty
    return True


@njit(cache=True, parallel=True)
def collect_votes(  # type: ignore[no-untyped-def]
    points, normals, images, alphas, matrices, positions, depths, trust, gains
):
    """(P, V, 4) float32: colour and weight of every view's vote, weight 0 for none."""
    votes = np.zeros((len(points), len(images), 4), dtype=np.float32)
    for i in prange(len(points)):
        vote = np.empty(5)
        for view in range(len(images)):
            if cast_vote(
                view, points[i], normals[i], images, alphas, matrices, positions, depths, trust,
                gains, vote,
            ):  # fmt: skip
                for k in range(4):
                    votes[i, view, k] = vote[k]
    return votes


@njit(cache=True, parallel=True)
def blend_votes(  # type: ignore[no-untyped-def]
    points, normals, images, alphas, matrices, positions, depths, trust, gains, spread
):
    """Blend the views' votes for each point, those that disagree counting less.

    spread: the distance in colour from the weighted median at which a vote counts a quarter.
    Returns colours (P, 3) float32 and the highest certainty (P,) float32 among the votes, both 0
    where no view sees the point.
    """
    count = len(images)
    colors = np.zeros((len(points), 3), dtype=np.float32)
    certainties = np.zeros(len(points), dtype=np.float32)
    chunk = 256
    for block in prange((len(points) + chunk - 1) // chunk):
        votes = np.empty((count, 5))
        order = np.empty(count, dtype=np.int64)
        middle = np.empty(3)
        for i in range(block * chunk, min(len(points), (block + 1) * chunk)):
            found, best = 0, 0.0
            for view in range(count):
                if cast_vote(
                    view, points[i], normals[i], images, alphas, matrices, positions, depths,
                    trust, gains, votes[found],
                ):  # fmt: skip
                    best = max(best, votes[found, 4])
                    found += 1
            if found == 0:
                continue
            if found > 2:
                for k in range(3):
                    middle[k] = _weighted_median(votes, k, found, order)
                for j in range(found):
                    away = 0.0
                    for k in range(3):
                        away += (votes[j, k] - middle[k]) ** 2
                    votes[j, 3] /= (1 + away / (spread * spread)) ** 2
            total = 0.0
            for j in range(found):
                total += votes[j, 3]
            for k in range(3):
                mean = 0.0
                for j in range(found):
                    mean += votes[j, 3] * votes[j, k]
                colors[i, k] = mean / total
            certainties[i] = best
    return colors, certainties


@njit(cache=True)
def _weighted_median(votes, channel, found, order):  # type: ignore[no-untyped-def]
    """The value in a column of votes at which half of the weight is passed."""
    total = 0.0
    for j in range(found):
        total += votes[j, 3]
        here = j
        while here > 0 and votes[order[here - 1], channel] > votes[j, channel]:
            order[here] = order[here - 1]
            here -= 1
        order[here] = j
    passed = 0.0
    for j in range(found):
        passed += votes[order[j], 3]
        if passed >= 0.5 * total:
            return votes[order[j], channel]
    return votes[order[found - 1], channel]
