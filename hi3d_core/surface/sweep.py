"""Surface searched for along its normals in the pictures at their full size.

A fit's small steps follow the pictures' slopes, so it settles in the nearest dip: a fine weave or
grain has one every few pixels, in a coarse level's small pictures none at all, and a plain wall
hardly any slope. So every place of the surface is tried at many offsets at once, and each offset
is asked how well the views agree on a small patch there (plane sweep: Collins 1996, "A space-sweep
approach to true multi-image matching"). `fairing.py` then chooses offsets for all places together.

Lengths in voxels, positions in node coordinates. Letters: V views, N vertices, K offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numba import prange
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from ..datatypes import OrbitViews
from ..jit import njit
from .consistency import Sightings
from .fairing import Offers, Rims, fair_moves
from .field import Field, close_border, redistance
from .hull import FloatArray, Grid, silhouette_distances
from .outlines import crisp_outlines
from .recolor import COLORING_ITERATIONS, Refit, recolored
from .render import clip_to_grid, trilinear

SWEEP_STEPS = 1 + COLORING_ITERATIONS

_REACH, _STEP = 3.5, 0.25  # of the offsets, voxels
_HALF = 2  # a patch has 2 * _HALF + 1 samples a side,
_SPACING = 1.5  # pixels apart
_LEAST_COSINE = 0.15  # of a view to the normal; what is seen at a glance is smeared
_NEAR = 2.0  # voxels: what hides a place from nearer by is taken for the surface itself
_MOST_VIEWS = 7  # that face a place most
_REFERENCES = 3  # of them, each compared with the others; the one that agrees best counts
# Differences are relative to the patches' own contrasts. Two plain patches match at any offset that
# misses what is drawn on the surface, so they cost this much, and not nothing:
_PLAIN_COST = np.float32(0.3)
_PLAIN = np.float32(0.004)  # the contrast below which patches are plain
_WORST = np.float32(1.5)  # no match costs more, nor an offset where no two views can be compared
_KEPT = 0.6  # of the others, those that agree best: the rest may see something before it
_SHOWN = 0.9  # alpha from which a sample shows the object: what lies beside it is no surface
_COMPARED = 0.4  # of a patch's samples, at least, that both views show
_EMPTY = 0.3  # alpha below which a view shows that there is nothing
_AT_ONCE = 4096  # vertices between moments to cancel
_NEIGHBOURS = 4  # vertices that a node takes its offset from


def sweep_surface(
    field: Field,
    views: OrbitViews,
    sightings: Sightings,
    refit: Refit,
    alive: Callable[[], None],
) -> Iterator[tuple[Field, int]]:
    """Move a field's surface to where the views agree. Yields (the field so far, steps done).

    views: exact ones, at their full size, in the frame of the field's grid. sightings, refit: of
    the level that the field was fitted on. alive: called between parts of it; may raise to cancel.
    """
    moved = swept(field.sdf, field.grid, views, alive)
    yield field, 1
    for step, colored in enumerate(recolored(field, moved, sightings, refit), 2):
        yield colored, step


def swept(sdf: FloatArray, grid: Grid, views: OrbitViews, alive: Callable[[], None]) -> FloatArray:
    """The signed distance (X, Y, Z) to the surface that was found, at most _REACH away."""
    if not (sdf < 0).any():
        return sdf
    surface = _Surface.of(sdf)
    cameras = _Pinholes.of(views, grid)
    # As the fit sees them: a soft outline's colours are half the background's.
    images, alphas = crisp_outlines(views.images.cpu().numpy(), views.alphas.cpu().numpy())
    offsets = np.arange(-_REACH, _REACH + _STEP / 2, _STEP, dtype=np.float32)
    costs = np.zeros((len(surface.vertices), len(offsets)), np.float32)
    empty = np.zeros(costs.shape, np.bool_)
    known = np.zeros(len(costs), np.bool_)
    pixel = cameras.pixel_at(surface.vertices)
    for start in range(0, len(costs), _AT_ONCE):
        alive()
        part = slice(start, start + _AT_ONCE)
        vertices, normals = surface.vertices[part], surface.normals[part]
        facing = _facing(vertices, normals, cameras.eyes, sdf)
        known[part] = (facing > 0).sum(axis=1) > 1
        _try_offsets(
            vertices,
            normals,
            offsets,
            facing,
            cameras.projections,
            images,
            alphas,
            np.float32(_SPACING * pixel),
            costs[part],
            empty[part],
        )
    offers = Offers(offsets, costs, empty, known)
    insides = silhouette_distances(torch.from_numpy(alphas))
    rims = Rims.of(surface.vertices, cameras.projections, insides, pixel)
    moves = fair_moves(surface.vertices, surface.faces, surface.normals, offers, rims, alive)
    alive()
    return redistance(close_border(_warped(sdf, surface.vertices, moves)), alive)


def _warped(sdf: FloatArray, vertices: FloatArray, moves: FloatArray) -> FloatArray:
    """A distance whose zero level has moved by that of the nearest vertices, along its normals."""
    near = np.argwhere(np.abs(sdf) < _REACH + 2)
    distances, nearest = cKDTree(vertices).query(near, k=_NEIGHBOURS)
    shares = 1 / (distances + 0.1) ** 2
    shares /= shares.sum(axis=1, keepdims=True)
    warped = sdf.copy()
    warped[tuple(near.T)] -= (moves[nearest] * shares).sum(axis=1).astype(np.float32)
    return warped


@dataclass(frozen=True, eq=False)
class _Surface:
    """The zero level: vertices (N, 3), faces (F, 3), outward unit normals (N, 3)."""

    vertices: FloatArray
    faces: NDArray[np.int32]
    normals: FloatArray

    @staticmethod
    def of(sdf: FloatArray) -> _Surface:
        vertices, faces, _, _ = marching_cubes(
            close_border(sdf), level=0.0, gradient_direction="descent"
        )
        slopes = np.gradient(gaussian_filter(sdf, 1.0))
        normals = np.stack([map_coordinates(s, vertices.T, order=1) for s in slopes], axis=1)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
        return _Surface(vertices.astype(np.float32), faces, normals.astype(np.float32))


@dataclass(frozen=True, eq=False)
class _Pinholes:
    """Cameras in node coordinates: projections (V, 3, 4) to pixels, eyes (V, 3), a focal length."""

    projections: FloatArray
    eyes: FloatArray
    focal: float  # pixels

    @staticmethod
    def of(views: OrbitViews, grid: Grid) -> _Pinholes:
        from_nodes = np.diag([grid.voxel] * 3 + [1.0])
        from_nodes[:3, 3] = grid.origin
        intrinsics = views.cameras.intrinsics.double().cpu().numpy()
        to_camera = views.cameras.world_to_camera[:, :3].double().cpu().numpy()
        eyes = (views.cameras.positions.double().cpu().numpy() - grid.origin) / grid.voxel
        projections = (intrinsics @ to_camera @ from_nodes).astype(np.float32)
        return _Pinholes(projections, eyes.astype(np.float32), float(intrinsics[0, 0, 0]))

    def pixel_at(self, vertices: FloatArray) -> float:
        """A pixel's size at the object, in voxels."""
        away = np.linalg.norm(self.eyes - vertices.mean(axis=0), axis=1)
        return float(away.mean()) / self.focal


@njit(parallel=True, cache=True, fastmath=True)
def _facing(
    vertices: FloatArray,  # (N, 3)
    normals: FloatArray,  # (N, 3)
    eyes: FloatArray,  # (V, 3)
    sdf: FloatArray,
) -> FloatArray:
    """(N, V) cosine of the normal to each view that sees the vertex, 0 for those that don't."""
    facing = np.zeros((len(vertices), len(eyes)), np.float32)
    for n in prange(len(vertices)):
        for v in range(len(eyes)):
            ray = eyes[v] - vertices[n]
            ray /= np.sqrt((ray * ray).sum())
            cosine = (ray * normals[n]).sum()
            if cosine < _LEAST_COSINE:
                continue
            x, y, z = vertices[n]
            _, leave = clip_to_grid(vertices[n], ray, sdf.shape)
            t, is_free = np.float32(_NEAR), True
            while t < leave and is_free:
                f = trilinear(sdf, x + t * ray[0], y + t * ray[1], z + t * ray[2])
                is_free = f >= 0
                t += max(f, np.float32(0.3))
            if is_free:
                facing[n, v] = cosine
    return facing


@njit(inline="always")
def _pixel(p, x, y, z):  # type: ignore[no-untyped-def]
    """Column and row, whole where a pixel has its middle, and the depth."""
    w = p[2, 0] * x + p[2, 1] * y + p[2, 2] * z + p[2, 3]
    column = (p[0, 0] * x + p[0, 1] * y + p[0, 2] * z + p[0, 3]) / w - np.float32(0.5)
    row = (p[1, 0] * x + p[1, 1] * y + p[1, 2] * z + p[1, 3]) / w - np.float32(0.5)
    return column, row, w


@njit(inline="always")
def _blend(upper_left, upper_right, lower_left, lower_right, fx, fy):  # type: ignore[no-untyped-def]
    """What lies between four pixels, by its shares fx, fy of the way right and down."""
    upper = (1 - fx) * upper_left + fx * upper_right
    return (1 - fy) * upper + fy * ((1 - fx) * lower_left + fx * lower_right)


@njit(inline="always")
def _contrast(patch, shows):  # type: ignore[no-untyped-def]
    """Mean absolute deviation of the samples (S, 3) that are shown."""
    total, count = np.float32(0), max(shows.sum(), 1)
    for c in range(3):
        mean = np.float32(0)
        for s in range(len(shows)):
            if shows[s]:
                mean += patch[s, c] / count
        for s in range(len(shows)):
            if shows[s]:
                total += abs(patch[s, c] - mean)
    return total / (3 * count)


@njit(parallel=True, cache=True, fastmath=True)
def _try_offsets(
    vertices: FloatArray,  # (N, 3)
    normals: FloatArray,  # (N, 3)
    offsets: FloatArray,  # (K,)
    facing: FloatArray,  # (N, V)
    projections: FloatArray,  # (V, 3, 4)
    images: FloatArray,  # (V, H, W, 3)
    alphas: FloatArray,  # (V, H, W)
    spacing: np.float32,  # voxels
    costs: FloatArray,  # (N, K) out: difference of the views' patches, in [0, _WORST]
    empty: NDArray[np.bool_],  # (N, K) out: whether some view shows that there is nothing
) -> None:
    views = len(projections)
    height, width = alphas.shape[1], alphas.shape[2]
    samples = (2 * _HALF + 1) ** 2
    zero, one = np.float32(0), np.float32(1)
    for n in prange(len(vertices)):
        order = np.argsort(-facing[n])
        used = 0
        while used < min(views, _MOST_VIEWS) and facing[n, order[used]] > 0:
            used += 1
        nx, ny, nz = normals[n]
        # Two directions along the surface (Duff et al. 2017, "Building an orthonormal basis").
        sign = one if nz >= 0 else -one
        a = -one / (sign + nz)
        b = nx * ny * a
        sx, sy, sz = one + sign * nx * nx * a, sign * b, -sign * nx
        tx, ty, tz = b, sign + ny * ny * a, -ny
        patches = np.empty((max(used, 1), samples, 3), np.float32)
        shows = np.empty((max(used, 1), samples), np.bool_)
        contrasts = np.empty(max(used, 1), np.float32)
        errors = np.empty(max(used - 1, 1), np.float32)
        for k in range(len(offsets)):
            ox = vertices[n, 0] + offsets[k] * nx
            oy = vertices[n, 1] + offsets[k] * ny
            oz = vertices[n, 2] + offsets[k] * nz
            for v in range(views):
                column, row, depth = _pixel(projections[v], ox, oy, oz)
                if depth > 0 and 0 <= column <= width - 1.01 and 0 <= row <= height - 1.01:
                    i, j = int(row), int(column)
                    fy, fx = row - i, column - j
                    alpha = _blend(
                        alphas[v, i, j],
                        alphas[v, i, j + 1],
                        alphas[v, i + 1, j],
                        alphas[v, i + 1, j + 1],
                        fx,
                        fy,
                    )
                    if alpha < _EMPTY:
                        empty[n, k] = True
            if used < 2:
                continue
            for q in range(used):
                v = order[q]
                for s in range(samples):
                    along, across = s // (2 * _HALF + 1) - _HALF, s % (2 * _HALF + 1) - _HALF
                    column, row, _ = _pixel(
                        projections[v],
                        ox + spacing * (along * sx + across * tx),
                        oy + spacing * (along * sy + across * ty),
                        oz + spacing * (along * sz + across * tz),
                    )
                    column = min(max(column, zero), np.float32(width - 1.01))
                    row = min(max(row, zero), np.float32(height - 1.01))
                    i, j = int(row), int(column)
                    fy, fx = row - i, column - j
                    alpha = _blend(
                        alphas[v, i, j],
                        alphas[v, i, j + 1],
                        alphas[v, i + 1, j],
                        alphas[v, i + 1, j + 1],
                        fx,
                        fy,
                    )
                    shows[q, s] = alpha > _SHOWN
                    for c in range(3):
                        patches[q, s, c] = _blend(
                            images[v, i, j, c],
                            images[v, i, j + 1, c],
                            images[v, i + 1, j, c],
                            images[v, i + 1, j + 1, c],
                            fx,
                            fy,
                        )
                contrasts[q] = _contrast(patches[q], shows[q])
            kept = max(1, int(np.ceil(_KEPT * (used - 1))))
            lowest = _WORST
            for reference in range(min(used, _REFERENCES)):
                count = 0
                for q in range(used):
                    if q == reference:
                        continue
                    error, compared = zero, 0
                    for s in range(samples):
                        if not (shows[q, s] and shows[reference, s]):
                            continue
                        compared += 1
                        for c in range(3):
                            error += abs(patches[q, s, c] - patches[reference, s, c])
                    if compared >= _COMPARED * samples:
                        errors[count] = error / (3 * compared) + _PLAIN_COST * _PLAIN
                        errors[count] /= contrasts[q] + contrasts[reference] + _PLAIN
                        count += 1
                if count >= kept:
                    lowest = min(lowest, np.sort(errors[:count])[:kept].mean())
            costs[n, k] = lowest
