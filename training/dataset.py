"""Orbits on disk, in the layout of Hi3D's released training: one folder an object.

    <folder>/<object>/000.png ... 095.png      RGBA, straight alpha, names in order
    <folder>/00000.tar ...                     or the same in tars, see `packed_orbits.py`

The frames lie ring after ring, 16 azimuths each, at -10, 0, 10, 20, 30 and 40 degrees; a folder may
hold fewer rings. Where a `transforms.json` tells the frames' `elevation_degrees`, they are taken
instead: beside the frames, or where `render_dataset.py` puts it, in `../extras/<object>/`. One
sample is one ring, turned so that it begins at any of its frames. Letters: F frames of a ring, S
the sample's side in pixels.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hi3d_core.read.pictures import opening

from .packed_orbits import PackedFile, is_packed, packed_objects

_log = logging.getLogger(__name__)

FRAMES = 16
ELEVATIONS = (-10.0, 0.0, 10.0, 20.0, 30.0, 40.0)
_TRANSFORMS = "transforms.json"
_ATTEMPTS = 64  # at objects that can be read, before giving up
_SHOWN = 5  # problems in a message


@dataclass(frozen=True, eq=False)
class OrbitSample:
    """One ring, beginning at its conditioning view.

    name: of the object. start: index of the first frame among all of the object's.
    elevation_degrees: of the ring. frames: (F, 3, S, S) uint8, on white.
    background: (F, S, S) true where alpha is exactly 0.
    """

    name: str
    start: int
    elevation_degrees: float
    frames: Tensor
    background: Tensor


_File = Path | PackedFile


@dataclass(frozen=True)
class _Object:
    """One object's files, in order, and the elevation of each ring. place: where they are."""

    name: str
    place: Path
    files: tuple[_File, ...]
    elevations: tuple[float, ...]


class OrbitDataset:
    """All objects of a folder.

    names: of those that can be used, in order.
    skipped: what could not be used so far, by path, and why; damaged frames are found when read.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int = 512,
        *,
        resolution: int | None = None,
        most: int | None = None,
    ) -> None:
        """List the objects.

        folder: of the objects, or one whose folder `images` is that; or of tars, or one whose
        folder `shards` is that and that has no `images`.
        size: S, to which frames are resized. resolution: side that the files must have; None takes
        squares of any side, alike within a ring. most: only so many objects, the first by name.
        Raises ValueError for a folder that is not there or holds nothing that can be used.
        """
        self.folder, self.size, self.resolution = Path(folder).absolute(), size, resolution
        for name in ("images", "shards"):
            if (self.folder / name).is_dir():
                self.folder = self.folder / name
                break
        self.skipped: dict[str, str] = {}
        if not self.folder.is_dir():
            raise ValueError(
                f"the dataset folder {folder} does not exist: expected a folder of objects, each a "
                "folder of frames"
            )
        self._objects: list[_Object] = []
        for place, files in self._places():
            if len(self._objects) == most:
                break
            try:
                self._objects.append(_listed(place, files))
            except ValueError as error:
                self._skip(place, error)
        if not self._objects:
            raise ValueError(
                f"the dataset folder {folder} holds no object that can be used{self._told()}: "
                f"expected folders of {FRAMES} RGBA .png frames a ring, {len(ELEVATIONS)} rings "
                "at most"
            )

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def names(self) -> list[str]:
        """The objects, in the order in which they are drawn from."""
        return [each.name for each in self._objects]

    def rings(self, index: int) -> int:
        """How many rings an object has."""
        return len(self._objects[index].elevations)

    def draw(self, generator: torch.Generator) -> OrbitSample:
        """A ring of any object, beginning at any of its frames, all equally often.

        Where a ring can't be read, it is named, counted in `skipped`, and another is drawn.
        Raises ValueError if none of many can be read.
        """
        for _ in range(_ATTEMPTS):
            index = int(torch.randint(len(self._objects), (), generator=generator))
            frames = len(self._objects[index].files)
            start = int(torch.randint(frames, (), generator=generator))
            try:
                return self.read(index, start)
            except _Unreadable as error:
                self._skip(error.path, error)
        raise ValueError(
            f"{_ATTEMPTS} rings in turn could not be read from {self.folder}{self._told()}: render "
            "them again"
        )

    def read(self, index: int, start: int) -> OrbitSample:
        """The ring of an object that holds frame `start`, turned so that it begins there.

        Raises ValueError for frames that can't be read or have another size, naming them, and
        IndexError for numbers out of range.
        """
        each = self._objects[index]
        if not 0 <= start < len(each.files):
            raise IndexError(f"start is {start}, {each.place} has {len(each.files)} frames")
        ring = start // FRAMES
        first = ring * FRAMES
        order = [*range(start, first + FRAMES), *range(first, start)]
        frames, backgrounds = [], []
        side = self.resolution
        for file in (each.files[number] for number in order):
            pixels = _read(file, side)
            side = side or len(pixels)
            frames.append(_on_white(pixels, self.size))
            backgrounds.append(_background(pixels[..., 3], self.size))
        return OrbitSample(
            each.name,
            start,
            each.elevations[ring],
            torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(np.stack(backgrounds)),
        )

    def check(self) -> dict[str, str]:
        """Read every ring once; returns all problems, by path."""
        for index, each in enumerate(self._objects):
            for first in range(0, len(each.files), FRAMES):
                try:
                    self.read(index, first)
                except _Unreadable as error:
                    self._skip(error.path, error)
        return dict(self.skipped)

    def _places(self) -> Iterator[tuple[Path, Sequence[_File]]]:
        """Each object's folder, or what would be it, and all its files."""
        if is_packed(self.folder):
            for name, packed in packed_objects(self.folder).items():
                yield self.folder / name, packed
            return
        for path in sorted(each for each in self.folder.iterdir() if each.is_dir()):
            if not path.name.startswith("."):
                yield path, list(path.iterdir())

    def _skip(self, path: object, error: Exception) -> None:
        if str(path) not in self.skipped:
            self.skipped[str(path)] = str(error)
            _log.warning("skipped (%d so far): %s", len(self.skipped), error)

    def _told(self) -> str:
        if not self.skipped:
            return ""
        shown = "; ".join(list(self.skipped.values())[:_SHOWN])
        more = f" and {len(self.skipped) - _SHOWN} more" if len(self.skipped) > _SHOWN else ""
        return f" ({shown}{more})"


class _Unreadable(ValueError):
    """A frame that can't be used; path: its file."""

    def __init__(self, path: _File, message: str) -> None:
        super().__init__(message)
        self.path = path


def to_network_range(frames: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], as the official code does: value / 127.5 - 1."""
    return frames.float() / 127.5 - 1


def _listed(path: Path, held: Sequence[_File]) -> _Object:
    """An object's frames among the files that are held for it.

    Raises ValueError for another number of frames or names out of order.
    """
    files = sorted((each for each in held if _is_frame(each)), key=lambda each: each.name)
    rings, rest = divmod(len(files), FRAMES)
    if not files or rest:
        raise ValueError(
            f"{path} holds {len(files)} frames, expected a multiple of {FRAMES}: render it again"
        )
    stems = [each.stem for each in files]
    if all(stem.isdecimal() for stem in stems) and stems != sorted(stems, key=int):
        raise ValueError(
            f"the frames of {path} are not in order by name: fill the numbers with zeros (000.png)"
        )
    transforms = _transforms(path, held)
    return _Object(path.name, path, tuple(files), _elevations(path, transforms, stems, rings))


def _is_frame(file: _File) -> bool:
    if isinstance(file, PackedFile):  # <object>.000.png, beside <object>.000.depth.png and others
        return file.name.count(".") == 2 and file.name.endswith(".png")
    return file.suffix == ".png" and not file.name.startswith(".")


def _transforms(path: Path, held: Sequence[_File]) -> _File | None:
    """The file that tells an object's cameras, if there is one."""
    for file in held:
        if file.name in (_TRANSFORMS, f"{path.name}.{_TRANSFORMS}"):
            return file
    beside = path.parents[1] / "extras" / path.name / _TRANSFORMS
    return beside if beside.exists() else None


def _elevations(
    path: Path, file: _File | None, stems: Sequence[str], rings: int
) -> tuple[float, ...]:
    """Of each ring: what transforms.json says, else the official ones."""
    told: dict[str, float] = {}
    if file is not None:
        try:
            told = {
                Path(frame["file_path"]).stem: float(frame["elevation_degrees"])
                for frame in json.loads(file.read_bytes().decode("utf-8"))["frames"]
                if "elevation_degrees" in frame
            }
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{file} can't be read ({error}): render the object again") from error
    if not told:
        if rings > len(ELEVATIONS):
            raise ValueError(
                f"{path} holds {rings} rings, expected {len(ELEVATIONS)} at most, as no "
                f"{_TRANSFORMS} tells their elevations"
            )
        return ELEVATIONS[:rings]
    elevations = []
    for ring in range(rings):
        values = {told.get(stem) for stem in stems[ring * FRAMES : (ring + 1) * FRAMES]}
        if len(values) != 1 or None in values:
            raise ValueError(
                f"{file} tells no single elevation for ring {ring}: expected elevation_degrees at "
                f"each frame, alike within {FRAMES} frames"
            )
        elevations.append(float(values.pop() or 0.0))
    return tuple(elevations)


def _read(file: _File, side: int | None) -> np.ndarray:
    """(H, H, 4) uint8. Raises _Unreadable, naming the file."""
    try:
        with opening(file, file.open() if isinstance(file, PackedFile) else None) as image:
            mode, pixels = image.mode, np.asarray(image)
    except (ValueError, OSError) as error:
        raise _Unreadable(file, str(error)) from error
    if mode != "RGBA" or pixels.dtype != np.uint8:
        raise _Unreadable(file, f"{file} is {mode}, expected 8-bit RGBA: render it with alpha")
    height, width = pixels.shape[:2]
    if height != width or (side is not None and width != side):
        expected = f"{side} x {side}" if side is not None else "a square"
        raise _Unreadable(file, f"{file} is {width} x {height} pixels, expected {expected}")
    return pixels


def _on_white(pixels: np.ndarray, size: int) -> np.ndarray:
    """(H, H, 4) -> (S, S, 3) uint8: composited, truncated, resized, as in the released training."""
    values = pixels.astype(np.float32) / 255  # in double precision other values are truncated
    color, alpha = values[..., :3], values[..., 3:]
    image = Image.fromarray(((color * alpha + 1 - alpha) * 255).astype(np.uint8))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def _background(alpha: np.ndarray, size: int) -> np.ndarray:
    """(H, H) -> (S, S) booleans: nothing of the object is in the pixel.

    The released training takes alpha unresized, so it needs files of the sample's size.
    """
    if len(alpha) == size:
        return alpha == 0
    covered = Image.fromarray((alpha > 0).astype(np.float32))
    return np.asarray(covered.resize((size, size), Image.Resampling.BOX)) == 0
