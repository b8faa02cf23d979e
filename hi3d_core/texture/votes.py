"""What the views say about points of a surface: who sees a point, how well, in which colour.

A view's vote for a point weighs cos^4 of the angle between its ray and the normal, times how sure
it is to look at the surface there: nothing in front of it (z-buffer), and not beside a silhouette
or a depth edge, where a pixel may show something else (the background, or a part behind).

The arrays are those of `witness.Witness`, in its order.

Letters: V views, P points, H and W the pictures' height and width.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from ..jit import njit

_LEAST_COSINE = 0.05  # of the angle between ray and normal; below, a view does not count
_LEAST_WEIGHT = 1e-3  # a pixel of weight 0 still speaks where no other does


def eased(certainties: np.ndarray) -> np.ndarray:
    """From how sure the best vote is to how much of it to show: edge votes alone show nothing."""
    return _ramp(certainties, 0.08, 0.38)


def beyond_doubt(certainties: np.ndarray) -> np.ndarray:
    """How much the colour of a place may be spread to what was not seen.

    Stricter than showing it where it is: pixels beside a silhouette may hold a trace of the
    background, which would spread over a whole crown or sole.
    """
    return _ramp(certainties, 0.6, 0.95)


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    share = np.clip((values - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


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
    """Bilinear share of the z-buffer's four nearest pixels with nothing before depth z.

    x, y: in the z-buffer's own pixels.
    """
    height, width = depths.shape
    fx, fy = x - 0.5, y - 0.5
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
    view, point, normal, images, alphas, matrices, positions, depths, trust, weights, gains, vote
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
    height, width = alphas.shape[1:]
    certainty = _pixel_trust(
        trust[view], x * (trust.shape[2] / width), y * (trust.shape[1] / height)
    )
    if certainty <= 0.0:
        return False
    # Within a pixel of the z-buffer a surface at this angle may come so much nearer.
    row = np.sqrt(m[0, 0] * m[0, 0] + m[0, 1] * m[0, 1] + m[0, 2] * m[0, 2])
    finer_x, finer_y = depths.shape[2] / width, depths.shape[1] / height
    pixel = distance / (row * finer_x)
    tangent = min(np.sqrt(max(1 - cosine * cosine, 0.0)) / cosine, 8.0)
    slack = pixel * (1.0 + 1.5 * tangent)
    certainty *= _share_in_front(depths[view], x * finer_x, y * finer_y, z, slack)
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
    if weights.shape[2] > 1:
        vote[3] *= max(_pixel_trust(weights[view], x, y), _LEAST_WEIGHT)
    vote[4] = certainty
    return True


@njit(cache=True, parallel=True)
def collect_votes(  # type: ignore[no-untyped-def]
    points, normals, images, alphas, matrices, positions, depths, trust, weights, gains
):
    """(P, V, 5) float32: colour, weight and certainty of every view's vote, 0 for none."""
    votes = np.zeros((len(points), len(images), 5), dtype=np.float32)
    for i in prange(len(points)):
        vote = np.empty(5)
        for view in range(len(images)):
            if cast_vote(
                view, points[i], normals[i], images, alphas, matrices, positions, depths, trust,
                weights, gains, vote,
            ):  # fmt: skip
                for k in range(5):
                    votes[i, view, k] = vote[k]
    return votes


@njit(cache=True, parallel=True)
def blend_votes(  # type: ignore[no-untyped-def]
    points, normals, images, alphas, matrices, positions, depths, trust, weights, gains, spread
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
                    trust, weights, gains, votes[found],
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
