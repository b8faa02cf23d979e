"""Series of frames: a video, an animated picture, a folder or a list of picture files.

A series is opened first, which tells how many frames there are, and then loaded; so a long video
never lies in memory as a whole.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..resize import resize_array
from .memory import check_memory
from .pictures import PICTURE_SUFFIXES, opening, picture_to_array, read_picture
from .video import VIDEO_SUFFIXES, count_frames, read_video

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameSeries:
    """Frames that can be read.

    path: where they come from, for messages. names: one for each frame.
    read: gives the frames with the wanted indices, in order; each is (H, W, 3) float32, or
        (H, W, 4) with straight alpha.
    """

    path: Path
    names: list[str]
    read: Callable[[Sequence[int]], Iterator[np.ndarray]]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Frames:
    """Loaded frames of one size.

    colors: (V, H, W, 3) float32, straight. alphas: (V, H, W) float32, or None where no frame has
    an alpha channel that says anything. full_size: width and height in the files.
    """

    colors: np.ndarray
    alphas: np.ndarray | None
    full_size: tuple[int, int]


def open_frames(path: Path) -> FrameSeries:
    """Open a video, an animated picture or a folder of pictures (in natural order of names).

    Raises ValueError if there is no such path, nothing in it, or it can't be decoded.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a video, an animated picture or a folder")
    if path.is_dir():
        files = [
            file
            for file in path.iterdir()
            if file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".")
        ]
        if not files:
            raise ValueError(
                f"the folder {path} holds no pictures: expected frames as "
                f"{', '.join(sorted(PICTURE_SUFFIXES))} or a transforms.json"
            )
        return picture_series(path, sorted(files, key=_natural_key))
    if path.suffix.lower() in VIDEO_SUFFIXES:
        names = [f"{path.name} frame {index}" for index in range(count_frames(path))]
        return FrameSeries(path, names, lambda wanted: read_video(path, set(wanted)))
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return _animated_picture(path)
    raise ValueError(
        f"{path} is of an unknown kind: expected a folder, a transforms.json, a video "
        f"({', '.join(sorted(VIDEO_SUFFIXES))}) or a picture "
        f"({', '.join(sorted(PICTURE_SUFFIXES))})"
    )


def picture_series(path: Path, files: Sequence[Path]) -> FrameSeries:
    """A series of picture files in the order given; `path` names the whole in messages."""

    def read(wanted: Sequence[int]) -> Iterator[np.ndarray]:
        return (read_picture(files[index]) for index in wanted)

    return FrameSeries(path, [file.name for file in files], read)


def load_frames(series: FrameSeries, indices: Sequence[int], max_size: int | None) -> Frames:
    """Load the frames of these indices (ascending), all of one size.

    max_size: frames with a longer side than this many pixels are scaled down to it.

    Raises ValueError for frames of different size or more than fits into memory.
    """
    colors = alphas = None
    full_size = (0, 0)
    for position, (index, frame) in enumerate(zip(indices, series.read(indices), strict=True)):
        size = (frame.shape[1], frame.shape[0])
        if colors is None or alphas is None:
            full_size = size
            width, height = _fitted_size(size, max_size)
            check_memory(len(indices), width, height, str(series.path))
            colors = np.empty((len(indices), height, width, 3), np.float32)
            alphas = np.ones((len(indices), height, width), np.float32)
        if size != full_size:
            raise ValueError(
                f"frames of {series.path} differ in size: {series.names[indices[0]]} is "
                f"{full_size[0]} x {full_size[1]}, {series.names[index]} is {size[0]} x {size[1]}; "
                "export all frames at one size"
            )
        fitted = _resize_straight(frame, colors.shape[2], colors.shape[1])
        colors[position] = fitted[..., :3]
        if fitted.shape[2] == 4:
            alphas[position] = fitted[..., 3]
    if colors is None or alphas is None:
        raise ValueError(f"{series.path} holds no frames")
    # An alpha channel that is opaque everywhere says nothing about the object.
    says_something = bool((alphas < 0.99).any())
    return Frames(colors, alphas if says_something else None, full_size)


def pick_evenly(count: int, limit: int, path: Path) -> list[int]:
    """Indices of at most `limit` of `count` frames, evenly spread, always with the first."""
    if count <= limit:
        return list(range(count))
    _log.info("%s holds %d frames: %d of them are used, evenly spread", path, count, limit)
    return [index * count // limit for index in range(limit)]


def _animated_picture(path: Path) -> FrameSeries:
    with opening(path) as image:
        count = getattr(image, "n_frames", 1)

    def read(wanted: Sequence[int]) -> Iterator[np.ndarray]:
        with opening(path) as image:
            for index in wanted:
                image.seek(index)
                yield picture_to_array(image)

    return FrameSeries(path, [f"{path.name} frame {index}" for index in range(count)], read)


def _fitted_size(size: tuple[int, int], max_size: int | None) -> tuple[int, int]:
    if max_size is None or max(size) <= max_size:
        return size
    scale = max_size / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resize_straight(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    if frame.shape[:2] == (height, width):
        return frame
    if frame.shape[2] == 3:
        return np.clip(resize_array(frame, width, height), 0, 1)
    # Colours are averaged by their coverage, or those of transparent pixels would bleed in.
    alpha = np.clip(resize_array(frame[..., 3], width, height), 0, 1)
    premultiplied = resize_array(frame[..., :3] * frame[..., 3:], width, height)
    colors = premultiplied / np.maximum(alpha, 1e-4)[..., None]
    return np.concatenate([np.clip(colors, 0, 1), alpha[..., None]], axis=2)


def _natural_key(path: Path) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]
