"""One entry for all kinds of input: `read_views`."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cameras import HI3D_FOV_DEGREES, HI3D_RADIUS, Cameras
from ..datatypes import OrbitViews
from ..masks import cut_out
from .frames import Frames, FrameSeries, load_frames, open_frames, pick_evenly, picture_series
from .posed import PosedFile, find_transforms
from .user_masks import read_masks

_log = logging.getLogger(__name__)

MIN_VIEWS = 4
MAX_VIEWS = 64


def read_views(
    source: str | Path,
    *,
    elevation_degrees: float | None = None,
    masks: str | Path | None = None,
    radius: float = HI3D_RADIUS,
    fov_degrees: float = HI3D_FOV_DEGREES,
    max_views: int = MAX_VIEWS,
    max_size: int | None = None,
) -> OrbitViews:
    """Read pictures of an object, find its outline, and place the cameras.

    source: one of
        - a folder with a `transforms.json` (or `transforms_train.json`), or the file itself:
          posed views in NeRF's convention; the world frame is kept;
        - a video (mp4, mov, webm, mkv, avi), an animated gif, webp or png, or a folder of
          pictures in natural order: an orbit, evenly around the object and counter-clockwise
          seen from above, the first frame in front.
    elevation_degrees: of an orbit's cameras, above the horizon is positive; None is 0. Posed
        views take none.
    masks: a folder (or video) with a mask for each frame, white where the object is; matched by
        file name where the names match, else by order. Wins over an alpha channel, which wins
        over a plain background that is keyed out, which wins over the network.
    radius, fov_degrees: of an orbit: distance to the object's centre in world units, and the
        field of view across the picture's width, whatever its height.
    max_views: of more frames as many are used, evenly spread, at their own angles.
    max_size: larger frames are scaled down so that their longer side has this many pixels.

    Returns views with colours over white. A last frame of an orbit that repeats the first is
    left out.

    Raises ValueError for anything that can't be read or makes no sense, fewer than four views,
    and masks that hold no object or nothing else; MissingDependency if the background is not
    plain and the network's package is missing.
    """
    source = Path(source)
    if masks is not None and not Path(masks).exists():
        raise ValueError(f"the masks {masks} do not exist: give a folder or a video of masks")
    if max_views < MIN_VIEWS:
        raise ValueError(f"max_views is {max_views}, expected at least {MIN_VIEWS}")
    if max_size is not None and max_size < 16:
        raise ValueError(f"max_size is {max_size} pixels, expected at least 16")
    transforms = find_transforms(source)
    posed = None
    if transforms is not None:
        if elevation_degrees is not None:
            raise ValueError(
                f"{transforms} has its own cameras: leave out the elevation ({elevation_degrees})"
            )
        posed = PosedFile(transforms)
        series = picture_series(transforms, posed.files)
    else:
        if elevation_degrees is None:
            elevation_degrees = 0.0
        # Made once before the pictures are read, to refuse bad angles early.
        Cameras.orbit(1, elevation_degrees, radius, fov_degrees)
        series = open_frames(source)
    _check_count(series, len(series))
    count = len(series)
    if posed is None and _repeats_first(series):
        _log.info("the last frame of %s repeats the first and is left out", series.path)
        count -= 1
        _check_count(series, count)
    indices = pick_evenly(count, max_views, series.path)
    frames = load_frames(series, indices, max_size)
    width, height = frames.full_size
    if posed is not None:
        cameras = posed.cameras(indices, width, height)
    else:
        cameras = Cameras.orbit(
            count, elevation_degrees or 0.0, radius, fov_degrees, width=width, height=height
        )[indices]
    height, width = frames.colors.shape[1:3]
    images, alphas = _cut(frames, masks, series, indices)
    return OrbitViews(images, alphas, cameras.resized(width, height))


def _cut(
    frames: Frames, masks: str | Path | None, series: FrameSeries, indices: list[int]
) -> tuple[Tensor, Tensor]:
    colors = torch.from_numpy(frames.colors)
    alphas = None if frames.alphas is None else torch.from_numpy(frames.alphas)
    if masks is None:
        return cut_out(colors, alphas, straight=True)
    if alphas is not None:
        # Colours where the file is transparent mean nothing: show them as a viewer would.
        colors = colors * alphas[..., None] + (1 - alphas[..., None])
    height, width = frames.colors.shape[1:3]
    return cut_out(
        colors, torch.from_numpy(read_masks(Path(masks), series.names, indices, width, height))
    )


def _repeats_first(series: FrameSeries) -> bool:
    """Whether the orbit was closed by showing the first view again at its end.

    Then the last frame differs from the first far less than from the one before it.
    """
    last = len(series) - 1
    frames = list(series.read([0, last - 1, last]))
    if any(frame.shape != frames[0].shape for frame in frames):
        return False  # refused with a clear message when all are loaded
    first, before, end = (
        frame * frame[..., -1:] if frame.shape[2] == 4 else frame for frame in frames
    )
    step = float(np.abs(end - before).mean())
    # Below a quarter of a level nothing turns: there's no telling.
    return step > 0.25 / 255 and float(np.abs(end - first).mean()) < 0.25 * step


def _check_count(series: FrameSeries, count: int) -> None:
    if count >= MIN_VIEWS:
        return
    what = {0: "no frames", 1: "only one frame"}.get(count, f"only {count} different frames")
    raise ValueError(
        f"{series.path} holds {what}: at least {MIN_VIEWS} views from around the object are "
        "needed, and 16 are better"
    )
