"""Cameras that are a little off, put right by what the current fit looks like from them.

Posed photos come with cameras that are wrong by a part of a degree and a focal length by a few
per cent. A fit to such photos is a compromise of all of them, so the flow from each rendering of
it to its photo tells where that photo would rather have the object. Points on the fit that
several views see, displaced by each view's flow, are tracks; bundle adjustment (`bundle.py`)
finds the small turn and shift of each camera, and the one focal factor, that explain them.

Letters: V views, N points, O observations.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from ..cameras import Cameras
from ..datatypes import OnStep, OrbitViews
from ..splat.fit import SplatConfig, fit_gaussians
from ..splat.interpolate import render_views
from ..surface.agreement import silhouette_agreement
from ..surface.hull import Placement, hull_points, locate
from .bundle import Array, Spreads, Tracks, adjust, projected
from .flow import FlowConfig, optical_flow

_log = logging.getLogger(__name__)

_COVERED = 0.8  # alpha of the rendering above which a pixel shows the object's surface
_TRACKED_CONFIDENCE = 0.05
_SAME_DEPTH = 0.03  # relative difference of depths up to which two views see one point


@dataclass(frozen=True)
class RefineCamerasConfig:
    """How cameras are refined. The spreads are standard deviations, known before looking."""

    points: int = 350  # a view starts at most
    pixel_spread: float = 0.5  # of flow, pixels
    views_worth: float = 20.0  # independent observations that a view's flow is worth
    point_spread: float = 0.01  # shares of the distance to the object: of points,
    shift_spread: float = 0.005  # of cameras' positions
    turn_spread_degrees: float = 2.0
    focal_spread: float = 0.05
    flow: FlowConfig = FlowConfig()


def refine_cameras(
    views: OrbitViews,
    rendered: OrbitViews,
    config: RefineCamerasConfig | None = None,
    *,
    expected: Cameras | None = None,
    on_step: OnStep | None = None,
) -> Cameras:
    """Cameras from which the rendered object would look more like the pictures.

    views: pictures over white. rendered: the current fit from the same cameras, with depths (as
    `splat.interpolate.render_views` gives it).

    Pictures are compared over white, so that outlines count as well as texture. Only small
    errors are found: a few per cent of the picture. The world's place, turn and scale are held:
    the cameras as a whole stay where they were. One call leaves a part of the error, as the fit
    had been drawn towards it; see `refined_cameras`. `on_step` counts views.

    expected: cameras to stay near to, if they are not those of `views`.

    Raises ValueError for pictures that don't belong together, a rendering without depths or
    fewer than two views.
    """
    config = config or RefineCamerasConfig()
    tracks = _tracks(views, rendered, config, on_step)
    if len(tracks.points) == 0:
        _log.warning("no picture resembles its rendering: the cameras are left as they are")
        return views.cameras
    distance = float(np.median(projected(views.cameras, *_seen(tracks))[1]))
    spreads = Spreads(
        pixel=config.pixel_spread,
        point=config.point_spread * distance,
        turn=float(np.radians(config.turn_spread_degrees)),
        shift=config.shift_spread * distance,
        focal=config.focal_spread,
    )
    expected = expected or views.cameras
    moved, _ = adjust(views.cameras, tracks, spreads, expected)
    return held_as_a_whole(moved, expected)


def held_as_a_whole(cameras: Cameras, reference: Cameras) -> Cameras:
    """The same pictures' cameras in the world whose cameras `reference` are, as nearly as may be.

    Pictures don't tell where the world's origin is, which way is up and how long a unit is. The
    similarity that is applied fits positions and viewing axes of all V cameras by least squares
    (Umeyama 1991); what the cameras saw moves along. Scale is kept if they stand at one place.
    """
    poses = cameras.camera_to_world.double().cpu().numpy()
    goals = reference.camera_to_world.double().cpu().numpy()
    here, there = poses[:, :3, 3], goals[:, :3, 3]
    here_offset, there_offset = here - here.mean(axis=0), there - there.mean(axis=0)
    spread = float((here_offset**2).sum(axis=1).mean())
    matrix = np.einsum("vik,vjk->ij", goals[:, :3, :3], poses[:, :3, :3]) * max(spread, 1e-12)
    matrix += there_offset.T @ here_offset
    left, _, right = np.linalg.svd(matrix)
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    turn = left @ flip @ right
    turned = here_offset @ turn.T
    nowhere = spread < 1e-12 * max(float((here**2).sum(axis=1).mean()), 1e-12)
    scale = 1.0 if nowhere else float((turned * there_offset).sum() / (turned**2).sum())
    new = poses.copy()
    new[:, :3, :3] = turn @ poses[:, :3, :3]
    new[:, :3, 3] = scale * turned + there.mean(axis=0)
    return replace(cameras, camera_to_world=torch.from_numpy(new).to(cameras.camera_to_world))


def pixels_moved(cameras: Cameras, reference: Cameras, points: Array) -> float:
    """How far apart two sets of V cameras see points (N, 3): root mean square pixels.

    What moving, turning and scaling the points as a whole would explain doesn't count (to first
    order; both cameras' worlds should nearly coincide).
    """
    count, views = len(points), len(cameras)
    point, view = np.tile(np.arange(count), views), np.repeat(np.arange(views), count)

    def seen(moved: Array) -> Array:
        return projected(cameras, moved, point, view)[0].reshape(-1)

    here = seen(points)
    apart = here - projected(reference, points, point, view)[0].reshape(-1)
    middle, step = points.mean(axis=0), 1e-5 * float(points.std() + 1e-12)
    ways = [np.broadcast_to(axis, points.shape) for axis in np.eye(3)]
    ways += [np.cross(axis, points - middle) for axis in np.eye(3)] + [points - middle]
    slopes = np.stack([(seen(points + step * way) - here) / step for way in ways], axis=1)
    apart = apart - slopes @ np.linalg.lstsq(slopes, apart, rcond=None)[0]
    return float(np.sqrt(2 * (apart**2).mean()))


def _seen(tracks: Tracks) -> tuple[Array, np.ndarray, np.ndarray]:
    return tracks.points, tracks.point, tracks.view


def _check(views: OrbitViews, rendered: OrbitViews) -> None:
    if views.images.shape != rendered.images.shape:
        raise ValueError(
            f"the pictures are {tuple(views.images.shape)}, the renderings "
            f"{tuple(rendered.images.shape)}: render the fit from the pictures' own cameras"
        )
    if rendered.depths is None:
        raise ValueError("the renderings have no depths: render the fit with depths")
    if len(views) < 2:
        raise ValueError("got one view: it takes two to tell a camera's error from the object's")


def _tracks(
    views: OrbitViews, rendered: OrbitViews, config: RefineCamerasConfig, on_step: OnStep | None
) -> Tracks:
    """Points of the rendered surface, and where each view's picture has them."""
    _check(views, rendered)
    assert rendered.depths is not None
    depths = rendered.depths.double().cpu().numpy()
    alphas = rendered.alphas.cpu().numpy()
    flows, confidences = [], []
    for view in range(len(views)):
        flow = optical_flow(
            rendered.images[view].float().cpu().numpy(),
            views.images[view].float().cpu().numpy(),
            config=config.flow,
        )
        known = (alphas[view] > _COVERED) & (depths[view] > 0)
        flows.append(flow.displacement.astype(np.float64))
        confidences.append(np.where(known, flow.confidence, 0).astype(np.float64))
        if on_step is not None:
            on_step(view + 1, len(views))
    starts = [_best_pixels(confidence, config.points) for confidence in confidences]
    points = np.concatenate(
        [_lifted(views.cameras[[v]], starts[v], depths[v]) for v in range(len(views))]
    )
    found = [
        _observed(views.cameras, v, points, depths[v], flows[v], confidences[v])
        for v in range(len(views))
    ]
    point = np.concatenate([one[0] for one in found])
    observer = np.repeat(np.arange(len(views)), [len(one[0]) for one in found])
    pixels = np.concatenate([one[1] for one in found])
    weights = np.concatenate([one[2] for one in found])
    # However much texture a view has, it is one witness.
    totals = np.bincount(observer, weights, len(views))
    weights = weights * config.views_worth / np.maximum(totals, 1e-9)[observer]
    return Tracks(points, point, observer, pixels, weights)


def _best_pixels(confidence: Array, count: int) -> np.ndarray:
    """(n, 2) row and column of the most confident pixel of each square; about `count` in all."""
    rows, columns = np.nonzero(confidence > _TRACKED_CONFIDENCE)
    if len(rows) == 0:
        return np.zeros((0, 2), np.int64)
    side = max(1, int(np.ceil(np.sqrt(len(rows) / count))))
    square = (rows // side) * confidence.shape[1] + columns // side
    order = np.lexsort((-confidence[rows, columns], square))
    first = np.concatenate([[True], np.diff(square[order]) > 0])
    return np.stack([rows, columns], axis=1)[order[first]]


def _lifted(camera: Cameras, pixels: np.ndarray, depths: Array) -> Array:
    """(n, 3) world points of pixels (n, 2), row and column, of one view's depths (H, W)."""
    k = camera.intrinsics[0].double().cpu().numpy()
    pose = camera.camera_to_world[0].double().cpu().numpy()
    depth = depths[pixels[:, 0], pixels[:, 1]]
    x = (pixels[:, 1] + 0.5 - k[0, 2]) / k[0, 0]
    y = (pixels[:, 0] + 0.5 - k[1, 2]) / k[1, 1]
    local = np.stack([x, y, np.ones_like(x)], axis=1) * depth[:, None]
    return local @ pose[:3, :3].T + pose[:3, 3]


def _observed(
    cameras: Cameras, view: int, points: Array, depths: Array, flow: Array, confidence: Array
) -> tuple[np.ndarray, Array, Array]:
    """Which points a view sees, where its picture has them (n, 2), and how surely (n,)."""
    everyone = np.arange(len(points))
    pixels, depth = projected(cameras, points, everyone, np.full(len(points), view))
    height, width = depths.shape
    inside = (depth > 0) & (pixels > 0).all(axis=1) & (pixels < (width, height)).all(axis=1)
    column, row = np.where(inside[:, None], pixels, 0).astype(np.int64).T
    sees = inside & (np.abs(depths[row, column] - depth) < _SAME_DEPTH * depth)
    sees &= confidence[row, column] > _TRACKED_CONFIDENCE
    where = pixels[sees].T[::-1] - 0.5
    displaced = [map_coordinates(flow[..., c], where, order=1, mode="nearest") for c in range(2)]
    return everyone[sees], pixels[sees] + np.stack(displaced, axis=1), confidence[row, column][sees]


# Few Gaussians and steps: a better fit would follow each picture to where its camera is wrong.
_ROUGH = SplatConfig(count=5000, iterations=100, coarse_share=0.0)


@dataclass(frozen=True)
class CameraRoundsConfig:
    """How often, and on pictures of which size, cameras are refined by `refined_cameras`."""

    sizes: tuple[int, ...] = (128, 128, 256, 512)  # pixels, the longer side; one round each
    splat: SplatConfig = _ROUGH
    refine: RefineCamerasConfig = field(default_factory=RefineCamerasConfig)
    least_move: float = 0.5  # pixels, of 512 on the longer side: less is noise, not applied

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 32:
            raise ValueError(f"sizes is {self.sizes}, expected at least one, each 32 or more")


def refined_cameras(
    views: OrbitViews,
    config: CameraRoundsConfig | None = None,
    *,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Cameras:
    """Refine cameras by rounds of: fit a quick splat, render it, `refine_cameras`.

    views: pictures over white with masks, in any world. Returns the cameras given, exactly, if
    the rounds moved them by no more than noise, or if the silhouettes fit each other worse.

    `on_step` may raise to cancel. Raises ValueError where the silhouettes have no point in
    common.
    """
    config = config or CameraRoundsConfig()
    placement = locate(views)
    cameras = views.cameras.in_frame(placement.center, placement.scale)
    local = replace(views, cameras=cameras, depths=None).to("cpu")
    given = local.cameras
    points = torch.zeros(0, 3)
    for index, size in enumerate(config.sizes):
        steps = _Share(on_step, index, len(config.sizes))
        small = at_size(local, size)
        points = hull_points(_grown(small), config.splat.count, seed)
        splat = fit_gaussians(
            small, points, replace(config.splat, size=size), seed=seed, on_step=steps.between(0, 80)
        )
        rendered = render_views(splat, small.cameras, on_step=steps.between(80, 90))
        refined = refine_cameras(
            small,
            rendered,
            config.refine,
            expected=given.resized(small.cameras.width, small.cameras.height),
            on_step=steps.between(90, 100),
        )
        local = replace(local, cameras=refined.resized(given.width, given.height))
    refined = held_as_a_whole(local.cameras, given)
    moved = pixels_moved(refined, given, points.double().numpy())
    moved *= 512 / max(given.width, given.height)
    before = silhouette_agreement(replace(local, cameras=given), placement)
    after = silhouette_agreement(replace(local, cameras=refined), placement)
    _log.info(
        "cameras moved by %.2f pixels of 512; silhouettes agree to %.4f, before to %.4f",
        moved, after, before,
    )  # fmt: skip
    if moved < config.least_move or after <= before:
        return views.cameras
    return _in_world(refined, placement).to(views.cameras.camera_to_world.device)


def at_size(views: OrbitViews, size: int) -> OrbitViews:
    """The views with a longer side of `size` pixels, never enlarged; without depths."""
    factor = min(1.0, size / max(views.cameras.width, views.cameras.height))
    if factor == 1:
        return replace(views, depths=None)
    width = max(1, round(views.cameras.width * factor))
    height = max(1, round(views.cameras.height * factor))
    stacked = torch.cat([views.images, views.alphas[..., None]], dim=-1).movedim(-1, 1)
    # Averages over areas are right for pictures over white, and for coverage.
    small = interpolate(stacked.float(), (height, width), mode="area").movedim(1, -1)
    images, alphas = small[..., :3].contiguous(), small[..., 3].contiguous()
    return OrbitViews(images, alphas, views.cameras.resized(width, height))


def _grown(views: OrbitViews) -> OrbitViews:
    """Masks grown by a hundredth of the picture: cameras that are off carve thin parts away."""
    reach = max(1, round(0.01 * max(views.cameras.width, views.cameras.height)))
    grown = max_pool2d(views.alphas[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0]
    return replace(views, alphas=grown)


def _in_world(cameras: Cameras, placement: Placement) -> Cameras:
    """Inverse of `Cameras.in_frame(placement.center, placement.scale)`."""
    center: Tensor = placement.center
    return cameras.in_frame(-center / placement.scale, 1 / placement.scale)


@dataclass(frozen=True)
class _Share:
    """Reports a round's parts as percents of all rounds."""

    on_step: OnStep | None
    index: int
    rounds: int

    def between(self, start: int, end: int) -> OnStep | None:
        """An `OnStep` for the part from `start` to `end` per cent of this round."""
        on_step = self.on_step
        if on_step is None:
            return None

        def report(done: int, total: int) -> None:
            at = 100 * self.index + start + (end - start) * done // total
            on_step(at, 100 * self.rounds)

        return report
