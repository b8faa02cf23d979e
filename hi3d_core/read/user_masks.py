"""A user's own masks, matched to the frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..resize import resize_array
from .frames import FrameSeries, open_frames


def read_masks(
    path: Path, frame_names: Sequence[str], indices: Sequence[int], width: int, height: int
) -> np.ndarray:
    """Masks for the frames of these indices, white where the object is.

    path: a folder, video or animated picture with one mask for each of `frame_names`. Masks in a
    folder are matched by file name (without its suffix) where each frame has one, else by order.
    A mask picture's own alpha channel counts if it has one, else its brightness. Masks of another
    size are resized if their shape is the frames'.

    Returns (V, H, W) float32, not checked for what it holds. Raises ValueError for masks that
    can't be read, another number of masks than frames, or another shape.
    """
    series = open_frames(path)
    positions = _match(series, frame_names, path, indices)
    # Series are read in ascending order; each mask goes to the view that asked for it.
    order = sorted(set(positions))
    views_of = {mask: [v for v, p in enumerate(positions) if p == mask] for mask in order}
    result = np.empty((len(indices), height, width), np.float32)
    for mask, picture in zip(order, series.read(order), strict=True):
        alpha = _to_alpha(picture)
        if alpha.shape != (height, width):
            # Within the pixel that rounding a scaled size may cost.
            if abs(alpha.shape[1] * height - alpha.shape[0] * width) > max(width, height):
                raise ValueError(
                    f"the mask {series.names[mask]} in {path} is {alpha.shape[1]} x "
                    f"{alpha.shape[0]} pixels, the frames are {width} x {height}: "
                    "masks must have the shape of the frames"
                )
            alpha = resize_array(alpha, width, height)
        result[views_of[mask]] = alpha
    return result


def _match(
    series: FrameSeries, frame_names: Sequence[str], path: Path, indices: Sequence[int]
) -> list[int]:
    """The position in `series` of the mask for each wanted frame."""
    by_stem = {Path(name).stem: position for position, name in enumerate(series.names)}
    stems = [Path(name).stem for name in frame_names]
    unique = len(set(stems)) == len(stems) and len(by_stem) == len(series)
    if unique and all(stems[index] in by_stem for index in indices):
        return [by_stem[stems[index]] for index in indices]
    if len(series) != len(frame_names):
        raise ValueError(
            f"{path} holds {len(series)} masks for {len(frame_names)} frames: give one mask for "
            "each frame, in the frames' order or with the frames' names"
        )
    return list(indices)


def _to_alpha(picture: np.ndarray) -> np.ndarray:
    if picture.shape[2] == 4 and float(picture[..., 3].min()) < 0.99:
        return picture[..., 3]
    return picture[..., :3].mean(axis=2)
