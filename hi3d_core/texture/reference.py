"""Register a reference picture, the user's own, to the camera it stands for.

A generator's first frame shows the user's picture, but cropped and scaled another way, in a few
hundred pixels. Their relation is a similarity without rotation: what lies in direction n of the
frame's camera (n = (pixel - c) / f) lies in direction s n + t of the picture's. It goes into the
picture's intrinsics, focal length s f and principal point c + f t, so the picture itself is not
resampled.

s and t are found coarse to fine by robust Gauss-Newton steps on colour and mask at once (Lucas and
Kanade 1981; gradients averaged as in Benhimane and Malis 2004), started from the masks' places
and sizes. In between the picture's tone is matched by a gain per channel, a median of ratios.

Letters: H and W the frame's height and width.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..cameras import Cameras
from ..datatypes import OrbitViews
from ..masks import cut_out
from ..resize import resize_array

_log = logging.getLogger(__name__)

_WIDTHS = (64, 128, 256, 512)  # of the frame, coarse to fine
_ROUNDS = 12  # of Gauss-Newton at each width
_STILL = 2e-3  # pixels: smaller steps end a width's rounds
_HUBER = 0.1  # residuals in colour beyond this count linearly
_GREY = 0.5  # behind the object, as white things on white show no outline
_MASK_WEIGHT = 0.5  # of the mask's residual beside the three of colour
_MOST_SCALE, _MOST_SHIFT = math.log(2.0), 0.5  # log ratio; shares of the frame's width
_LARGEST_GAIN = 2.0
_LARGEST_ANGLE = 6.0  # degrees between the cameras' directions for "the same view"
_LEAST_OVERLAP, _LARGEST_ERROR = 0.8, 0.12  # masks' IoU; mean difference in levelled colours
_OPAQUE = 0.95


@dataclass(frozen=True)
class PicturePlace:
    """Where a picture lies in a frame: scale s and shift t (in units of the focal length).

    overlap: IoU of the masks; error: mean absolute difference of the colours, tone matched.
    """

    scale: float
    shift_x: float
    shift_y: float
    overlap: float = 0.0
    error: float = 1.0

    @property
    def is_good(self) -> bool:
        """Whether the picture truly shows what the frame shows."""
        return self.overlap >= _LEAST_OVERLAP and self.error <= _LARGEST_ERROR


def reference_picture(colors: Tensor, alpha: Tensor | None, cameras: Cameras) -> OrbitViews:
    """The user's picture as one view, with a first guess of its camera for `register_reference`.

    colors: (H, W, 3) straight, alpha: (H, W) or None, as `picture.read_input_picture` gives them.
    cameras: the one of the view that shows the same. The picture's shorter side is taken to span
    that view, as when a picture is cropped to a square around its middle.

    Raises ValueError for several cameras, and where no object is found in the picture.
    """
    if len(cameras) != 1:
        raise ValueError(f"got {len(cameras)} cameras, expected that of one view")
    alphas = None if alpha is None else alpha[None]
    images, alphas = cut_out(colors[None], alphas, straight=alpha is not None)
    height, width = int(colors.shape[0]), int(colors.shape[1])
    focal = cameras.intrinsics[0, 0, 0] * min(width, height) / min(cameras.width, cameras.height)
    intrinsics = torch.eye(3).to(cameras.intrinsics)[None].clone()
    intrinsics[0, 0, 0] = intrinsics[0, 1, 1] = focal
    intrinsics[0, 0, 2], intrinsics[0, 1, 2] = width / 2, height / 2
    camera = Cameras(cameras.camera_to_world, intrinsics, width, height)
    return OrbitViews(images.clamp(0, 1), alphas, camera)


def register_reference(reference: OrbitViews, views: OrbitViews) -> OrbitViews | None:
    """Give a picture the camera that fits it to a set of views, or to a rendering of their mesh.

    reference: one view, over white with its alpha, of any size; its camera is a first guess, from
    the place of one of the `views` (an orbit's first, resized). The picture may be cropped and
    scaled by up to a factor of two, not rotated. views: also a `MeshRender`.

    Returns the same picture with other intrinsics, for `bake`; or None, and the log says why, if
    it does not show what the view from there shows.
    Raises ValueError for several references, and if no view is from the reference's direction.
    """
    if len(reference) != 1:
        raise ValueError(f"the reference has {len(reference)} views, expected one picture")
    frame = views[[_same_view(reference.cameras, views.cameras)]]
    place = find_place(reference, frame)
    if not place.is_good:
        _log.warning(
            "the reference picture is left out: it does not show what the view from its camera "
            "shows (masks overlap by %.2f, colours differ by %.2f); check which view it belongs to",
            place.overlap,
            place.error,
        )
        return None
    _log.info(
        "reference picture: scale %.4f, shift %.2f, %.2f pixels, masks overlap by %.3f",
        place.scale,
        place.shift_x * float(reference.cameras.intrinsics[0, 0, 0]),
        place.shift_y * float(reference.cameras.intrinsics[0, 1, 1]),
        place.overlap,
    )
    return replace(reference, cameras=placed_camera(reference.cameras, place))


def placed_camera(cameras: Cameras, place: PicturePlace) -> Cameras:
    """The picture's camera with the similarity in its intrinsics."""
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, 0, 2] += cameras.intrinsics[:, 0, 0] * place.shift_x
    intrinsics[:, 1, 2] += cameras.intrinsics[:, 1, 1] * place.shift_y
    intrinsics[:, 0, 0] *= place.scale
    intrinsics[:, 1, 1] *= place.scale
    return replace(cameras, intrinsics=intrinsics)


def find_place(reference: OrbitViews, frame: OrbitViews) -> PicturePlace:
    """Where one picture lies in one frame, both from the same place. See the module's head."""
    starts = _starts(reference, frame)
    widths = [width for width in _WIDTHS if width <= frame.cameras.width] or [frame.cameras.width]
    best = None
    for width in widths:
        target = _Grid.of(frame, width)
        if best is None:  # all starts compete at the coarsest width
            tried = [_refined(reference, target, start) for start in starts]
            best = min(tried, key=lambda place: _cost(reference, target, place))
        else:
            best = _refined(reference, target, best)
    assert best is not None
    return _judged(reference, target, best)


def _same_view(reference: Cameras, cameras: Cameras) -> int:
    """The index of the camera that looks the way the reference's does."""
    cosines = cameras.forwards.cpu().double() @ reference.forwards[0].cpu().double()
    nearest = int(cosines.argmax())
    angle = math.degrees(math.acos(min(1.0, max(-1.0, float(cosines[nearest])))))
    if angle > _LARGEST_ANGLE:
        raise ValueError(
            f"no view looks the way the reference does: the nearest is {angle:.1f} degrees off, "
            f"expected up to {_LARGEST_ANGLE:g}; give the reference the camera of the view that "
            "was made from it, or register it to the mesh drawn at its camera"
        )
    return nearest


@dataclass(frozen=True, eq=False)
class _Grid:
    """A picture small enough to work on: channels (H, W, 4) of colour over grey, and alpha."""

    channels: np.ndarray
    focal: tuple[float, float]
    center: tuple[float, float]

    @staticmethod
    def of(view: OrbitViews, width: int) -> _Grid:
        cameras = view.cameras.to("cpu")
        height = max(8, round(width * cameras.height / cameras.width))
        cameras = cameras.resized(width, height)
        matrix = cameras.intrinsics[0].double().numpy()
        image = view.images[0].detach().cpu().float().numpy()
        alpha = view.alphas[0].detach().cpu().float().numpy()
        channels = np.dstack([image - (1 - _GREY) * (1 - alpha)[..., None], alpha])
        if channels.shape[:2] != (height, width):
            channels = resize_array(channels, width, height)
        return _Grid(
            channels.astype(np.float64), (matrix[0, 0], matrix[1, 1]), (matrix[0, 2], matrix[1, 2])
        )

    def directions(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) each: the first two coordinates of n for all pixel centres."""
        height, width = self.channels.shape[:2]
        x = (np.arange(width) + 0.5 - self.center[0]) / self.focal[0]
        y = (np.arange(height) + 0.5 - self.center[1]) / self.focal[1]
        return np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))

    def at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Channels at directions (x, y), and whether they are inside the picture."""
        height, width = self.channels.shape[:2]
        column = x * self.focal[0] + self.center[0] - 0.5
        row = y * self.focal[1] + self.center[1] - 0.5
        inside = (column >= 0) & (row >= 0) & (column <= width - 1) & (row <= height - 1)
        empty = (_GREY, _GREY, _GREY, 0.0)
        channels = [
            ndimage.map_coordinates(self.channels[..., k], [row, column], order=1, cval=empty[k])
            for k in range(4)
        ]
        return np.stack(channels, axis=-1), inside


def _at_pixel_size(reference: OrbitViews, target: _Grid, scale: float) -> _Grid:
    """The reference averaged down so that its pixels are the target's, once placed."""
    focal = float(reference.cameras.intrinsics[0, 0, 0]) * scale
    width = round(reference.cameras.width * target.focal[0] / focal)
    return _Grid.of(reference, min(max(width, 16), reference.cameras.width))


def _refined(reference: OrbitViews, target: _Grid, place: PicturePlace) -> PicturePlace:
    """Gauss-Newton rounds at the target's size."""
    picture = _at_pixel_size(reference, target, place.scale)
    x, y = target.directions()
    down, across = (np.gradient(target.channels, axis=axis) for axis in (0, 1))
    weights = np.array([1.0, 1.0, 1.0, _MASK_WEIGHT])
    for _ in range(_ROUNDS):
        shown, inside = picture.at(place.scale * x + place.shift_x, place.scale * y + place.shift_y)
        shown = _tone_matched(shown, target.channels)
        residual = shown - target.channels
        robust = np.minimum(1, _HUBER / np.maximum(np.abs(residual), 1e-9)) * weights
        robust *= inside[..., None]
        along_x = 0.5 * (across + np.gradient(shown, axis=1)) * (target.focal[0] / place.scale)
        along_y = 0.5 * (down + np.gradient(shown, axis=0)) * (target.focal[1] / place.scale)
        # A change of s moves what is shown by n ds, one of t by dt.
        slopes = np.stack([along_x * x[..., None] + along_y * y[..., None], along_x, along_y])
        slopes = slopes.reshape(3, -1)
        weighted = slopes * robust.reshape(-1)
        normal = weighted @ slopes.T
        normal[np.diag_indices(3)] += 1e-6 * np.trace(normal) + 1e-12
        step = -np.linalg.solve(normal, weighted @ residual.reshape(-1))
        place = _bounded(place, step)
        if np.abs(step).max() * max(target.focal) < _STILL:
            break
    return place


def _bounded(place: PicturePlace, step: np.ndarray) -> PicturePlace:
    limit = math.exp(_MOST_SCALE)
    ratio = min(max(1 + float(step[0]) / place.scale, 0.8), 1.25)
    scale = min(max(place.scale * ratio, 1 / limit), limit)
    shift = np.clip(
        [place.shift_x + step[1], place.shift_y + step[2]], -2 * _MOST_SHIFT, 2 * _MOST_SHIFT
    )
    return PicturePlace(scale, float(shift[0]), float(shift[1]))


def _tone_matched(shown: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`shown` with a gain per channel that makes its opaque parts as bright as the target's."""
    both = (shown[..., 3] > _OPAQUE) & (target[..., 3] > _OPAQUE)
    if both.sum() < 20:
        return shown
    matched = shown.copy()
    behind = _GREY * (1 - shown[..., 3])
    for k in range(3):
        here, there = shown[both][:, k], target[both][:, k]
        usable = (here > 0.04) & (there > 0.04) & (here < 0.97) & (there < 0.97)
        if usable.sum() < 20:
            continue
        gain = float(np.exp(np.median(np.log(there[usable] / here[usable]))))
        gain = min(max(gain, 1 / _LARGEST_GAIN), _LARGEST_GAIN)
        matched[..., k] = (shown[..., k] - behind) * gain + behind
    return matched


def _cost(reference: OrbitViews, target: _Grid, place: PicturePlace) -> float:
    """Mean robust residual over what both show or should show."""
    picture = _at_pixel_size(reference, target, place.scale)
    x, y = target.directions()
    shown, inside = picture.at(place.scale * x + place.shift_x, place.scale * y + place.shift_y)
    away = np.abs(_tone_matched(shown, target.channels) - target.channels)
    cost = np.where(away < _HUBER, away**2 / (2 * _HUBER), away - _HUBER / 2)
    anything = inside & ((shown[..., 3] > 0.05) | (target.channels[..., 3] > 0.05))
    if anything.sum() < 20:
        return math.inf
    return float(cost[anything].mean())


def _judged(reference: OrbitViews, target: _Grid, place: PicturePlace) -> PicturePlace:
    """The place with how well the picture fits there."""
    picture = _at_pixel_size(reference, target, place.scale)
    x, y = target.directions()
    shown, inside = picture.at(place.scale * x + place.shift_x, place.scale * y + place.shift_y)
    first, second = (shown[..., 3] > 0.5) & inside, (target.channels[..., 3] > 0.5) & inside
    both, either = (first & second).sum(), (first | second).sum()
    away = np.abs(_tone_matched(shown, target.channels) - target.channels)[..., :3]
    error = float(away[first & second].mean()) if both else 1.0
    return replace(place, overlap=float(both / max(either, 1)), error=error)


def _starts(reference: OrbitViews, frame: OrbitViews) -> list[PicturePlace]:
    """First guesses: the cameras as given, the masks' areas and centres, and their boxes."""
    width = min(_WIDTHS[1], frame.cameras.width)
    theirs, own = _Grid.of(frame, width), _Grid.of(reference, width)
    guesses = [PicturePlace(1.0, 0.0, 0.0)]
    limit = math.exp(_MOST_SCALE)
    for measure in (_moments, _box):
        a, b = measure(theirs), measure(own)
        if a is None or b is None:
            continue
        scale = min(max(b[0] / a[0], 1 / limit), limit)
        guesses.append(PicturePlace(scale, b[1] - scale * a[1], b[2] - scale * a[2]))
    return guesses


def _moments(grid: _Grid) -> tuple[float, float, float] | None:
    """Size and centre of the mask by its area and mean, in directions."""
    alpha = grid.channels[..., 3]
    total = alpha.sum()
    if total < 8:
        return None
    x, y = grid.directions()
    size = math.sqrt(total / (grid.focal[0] * grid.focal[1]))
    return size, float((alpha * x).sum() / total), float((alpha * y).sum() / total)


def _box(grid: _Grid) -> tuple[float, float, float] | None:
    """Height and centre of the box around the mask, in directions."""
    mask = grid.channels[..., 3] > 0.5
    if mask.sum() < 8:
        return None
    x, y = grid.directions()
    left, right, top, bottom = x[mask].min(), x[mask].max(), y[mask].min(), y[mask].max()
    size = float(max(bottom - top, right - left)) + 1 / grid.focal[1]
    return size, float(left + right) / 2, float(top + bottom) / 2
