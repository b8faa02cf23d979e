"""Bundle adjustment: cameras, one focal factor and points that explain what was seen where.

Least squares by Gauss-Newton with robust weights; the points, each of which touches few views,
are eliminated (the Schur complement; Triggs et al. 2000, "Bundle adjustment - a modern
synthesis", 6.1). All unknowns have priors that keep them near where they start, so nothing is
free to run away: a point that one view alone sees binds that view as far as it is trusted to
stay in its place.

A camera moves by a turn `w` (3,) and a shift `t` (3,) in its own frame:
    x_camera <- exp(w) x_camera + t,      pixel = exp(s) * focal * (x, y) / z + principal point
Letters: V views, N points, O observations, D = 6 V + 1 camera unknowns (w and t of each, then s).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..cameras import Cameras

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_ITERATIONS = 12
_SETTLED = 1e-3  # pixels: a step that moves no point further ends the search


@dataclass(frozen=True, eq=False)
class Tracks:
    """Points, and where views see them.

    points: (N, 3) in the world. point, view: (O,) whose observation it is, and by whom.
    pixels: (O, 2) where, centres at .5. weights: (O,) 0 or more.
    """

    points: Array
    point: Indices
    view: Indices
    pixels: Array
    weights: Array


@dataclass(frozen=True)
class Spreads:
    """Standard deviations: of what is seen, and of what may change, before it is seen."""

    pixel: float  # pixels; larger residuals count ever less
    point: float  # world units; likewise
    turn: float  # radians
    shift: float  # world units
    focal: float  # of the focal factor's logarithm


@dataclass(frozen=True, eq=False)
class _State:
    """The unknowns: world-to-camera rotations and translations, points, the focal's logarithm."""

    rotations: Array  # (V, 3, 3)
    translations: Array  # (V, 3)
    points: Array  # (N, 3)
    turns: Array  # (V, 3) moved so far, which the priors pull on
    shifts: Array  # (V, 3)
    log_focal: float


def adjust(
    cameras: Cameras, tracks: Tracks, spreads: Spreads, expected: Cameras | None = None
) -> tuple[Cameras, Array]:
    """Cameras and points (N, 3) that fit the tracks best, in the gauge the priors leave them in.

    The observations' weights are relative to one of standard deviation `spreads.pixel`.
    expected: where the priors have the cameras; None is where they are.
    """
    expected = expected or cameras
    now = cameras.world_to_camera.double().cpu().numpy()
    then = expected.world_to_camera.double().cpu().numpy()
    turned = now[:, :3, :3] @ then[:, :3, :3].transpose(0, 2, 1)
    k = expected.intrinsics.double().cpu().numpy()
    focal, center = k[:, [0, 1], [0, 1]], k[:, :2, 2]
    state = _State(
        now[:, :3, :3],
        now[:, :3, 3],
        tracks.points.copy(),
        Rotation.from_matrix(turned).as_rotvec(),
        now[:, :3, 3] - np.einsum("vij,vj->vi", turned, then[:, :3, 3]),
        math.log(float(cameras.intrinsics[0, 0, 0]) / float(expected.intrinsics[0, 0, 0])),
    )
    for _ in range(_ITERATIONS):
        state, largest = _step(state, tracks, spreads, focal, center)
        if largest < _SETTLED:
            break
    return _cameras_of(expected, state), state.points


def projected(
    cameras: Cameras, points: Array, point: Indices, view: Indices
) -> tuple[Array, Array]:
    """Pixels (O, 2) and depths (O,) of the observations `point` by `view`."""
    world_to_camera = cameras.world_to_camera.double().cpu().numpy()[view]
    local = np.einsum("oij,oj->oi", world_to_camera[:, :3, :3], points[point])
    local += world_to_camera[:, :3, 3]
    k = cameras.intrinsics.double().cpu().numpy()[view]
    pixels = k[:, [0, 1], [0, 1]] * local[:, :2] / local[:, 2:] + k[:, :2, 2]
    return pixels, local[:, 2]


def _step(
    state: _State, tracks: Tracks, spreads: Spreads, focal: Array, center: Array
) -> tuple[_State, float]:
    """One Gauss-Newton step; also the largest change of a pixel that it makes, about."""
    views, points = len(state.rotations), len(state.points)
    view, point = tracks.view, tracks.point
    rotation = state.rotations[view]
    local = np.einsum("oij,oj->oi", rotation, state.points[point]) + state.translations[view]
    x, y, z = local.T
    scaled = focal[view] * np.exp(state.log_focal)
    seen = scaled * local[:, :2] / z[:, None]
    residual = seen + center[view] - tracks.pixels

    by_local = np.zeros((len(z), 2, 3))
    by_local[:, 0, 0], by_local[:, 0, 2] = scaled[:, 0] / z, -scaled[:, 0] * x / z**2
    by_local[:, 1, 1], by_local[:, 1, 2] = scaled[:, 1] / z, -scaled[:, 1] * y / z**2
    by_camera = np.concatenate([by_local @ -_cross_matrices(local), by_local], axis=2)  # (O, 2, 6)
    by_point = by_local @ rotation

    weight = tracks.weights * _cauchy((residual**2).sum(axis=1) / spreads.pixel**2)
    weight = weight / spreads.pixel**2
    moved = state.points - tracks.points
    # A point's prior counts as much as its observations do.
    trust = np.bincount(point, tracks.weights, points) / np.maximum(np.bincount(point), 1)
    trust = trust * _cauchy((moved**2).sum(axis=1) / spreads.point**2) / spreads.point**2

    # Normal equations: cameras (D, D), points (N, 3, 3), and what couples them (D, N, 3).
    size = 6 * views + 1
    focal_column = np.full((len(view), 1), size - 1)
    columns = np.concatenate([6 * view[:, None] + np.arange(6), focal_column], axis=1)
    by_all = np.concatenate([by_camera, seen[:, :, None]], axis=2)  # (O, 2, 7)
    weighted = by_all * weight[:, None, None]
    matrix, right = np.zeros((size, size)), np.zeros(size)
    np.add.at(matrix, (columns[:, :, None], columns[:, None]), weighted.transpose(0, 2, 1) @ by_all)
    np.add.at(right, columns, -np.einsum("oij,oi->oj", weighted, residual))
    _add_camera_priors(matrix, right, state, spreads)

    blocks = np.zeros((points, 3, 3))
    np.add.at(blocks, point, weight[:, None, None] * by_point.transpose(0, 2, 1) @ by_point)
    blocks += trust[:, None, None] * np.eye(3)
    pull = -trust[:, None] * moved
    np.add.at(pull, point, -weight[:, None] * np.einsum("oij,oi->oj", by_point, residual))
    coupling = np.zeros((size, points, 3))
    np.add.at(coupling, (columns, point[:, None]), weighted.transpose(0, 2, 1) @ by_point)

    inverse = np.linalg.inv(blocks)
    reduced = np.einsum("anj,njk->ank", coupling, inverse).reshape(size, -1)
    flat = coupling.reshape(size, -1)
    change = np.linalg.solve(matrix - reduced @ flat.T, right - reduced @ pull.reshape(-1))
    back = pull - np.einsum("anj,a->nj", coupling, change)
    point_change = np.einsum("njk,nk->nj", inverse, back)

    largest = float(np.abs(np.einsum("oij,oj->oi", by_all, change[columns])).max())
    return _moved(state, change, point_change), largest


def _add_camera_priors(matrix: Array, right: Array, state: _State, spreads: Spreads) -> None:
    at = np.concatenate([state.turns, state.shifts], axis=1).reshape(-1)
    spread = np.tile(np.repeat([spreads.turn, spreads.shift], 3), len(state.turns))
    at, spread = np.append(at, state.log_focal), np.append(spread, spreads.focal)
    matrix[np.diag_indices(len(at))] += 1 / spread**2
    right -= at / spread**2


def _moved(state: _State, change: Array, point_change: Array) -> _State:
    cameras = change[:-1].reshape(-1, 6)
    turn, shift = cameras[:, :3], cameras[:, 3:]
    turned = Rotation.from_rotvec(turn).as_matrix()
    return _State(
        turned @ state.rotations,
        np.einsum("vij,vj->vi", turned, state.translations) + shift,
        state.points + point_change,
        state.turns + turn,
        state.shifts + shift,
        state.log_focal + float(change[-1]),
    )


def _cameras_of(cameras: Cameras, state: _State) -> Cameras:
    poses = np.tile(np.eye(4), (len(cameras), 1, 1))
    poses[:, :3, :3] = state.rotations.transpose(0, 2, 1)
    poses[:, :3, 3] = -np.einsum("vji,vj->vi", state.rotations, state.translations)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, [0, 1], [0, 1]] *= float(np.exp(state.log_focal))
    return replace(
        cameras,
        camera_to_world=torch.from_numpy(poses).to(cameras.camera_to_world),
        intrinsics=intrinsics,
    )


def _cauchy(squared: Array) -> Array:
    """Weight of a residual, from its square in standard deviations."""
    return 1 / (1 + squared / 4)


def _cross_matrices(vectors: Array) -> Array:
    """(O, 3, 3) the matrices that multiply as the cross product with `vectors` (O, 3)."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
