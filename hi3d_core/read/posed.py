"""Pictures with known cameras: a `transforms.json` in the convention of NeRF's data sets.

Poses there are camera-to-world in OpenGL axes; the world frame is kept as it is.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cameras import Cameras, check_intrinsics, check_rigid, opengl_to_opencv
from .pictures import PICTURE_SUFFIXES

_DISTORTIONS = ("k1", "k2", "k3", "k4", "p1", "p2")
_PINHOLE_MODELS = ("OPENCV", "PERSPECTIVE", "PINHOLE", "SIMPLE_PINHOLE")


class PosedFile:
    """A parsed transforms.json: files and, once the picture size is known, cameras.

    files: paths of the pictures, one for each frame, all of which exist.

    Raises ValueError, naming the frame, for invalid JSON, missing keys, pictures that are missing
    or outside the file's folder, poses that are not rigid, and lenses that are no pinholes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = _parse(path)
        self._frames: list[dict[str, Any]] = self._data["frames"]
        self._names = [_file_path(frame, index, path) for index, frame in enumerate(self._frames)]
        self.files = [_find_picture(path, name) for name in self._names]
        self._poses = torch.stack([self._pose(index) for index in range(len(self._frames))])

    def __len__(self) -> int:
        return len(self._frames)

    def cameras(self, indices: Sequence[int], width: int, height: int) -> Cameras:
        """Cameras of these frames for pictures of this size (in the files, before scaling).

        Raises ValueError for missing or impossible intrinsics, or a size in the file whose shape
        is not the pictures'.
        """
        intrinsics = torch.stack([self._intrinsics(index, width, height) for index in indices])
        return Cameras(self._poses[list(indices)].float(), intrinsics.float(), width, height)

    def _pose(self, index: int) -> Tensor:
        name = f"{self.path}: frame {self._names[index]}"
        rows = self._frames[index].get("transform_matrix")
        try:
            pose = torch.tensor(rows, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            pose = torch.empty(0)
        if pose.shape != (4, 4):
            raise ValueError(f"{name} needs a transform_matrix of 4 x 4 numbers, got {rows!r}")
        check_rigid(pose, name)
        return opengl_to_opencv(pose)

    def _intrinsics(self, index: int, width: int, height: int) -> Tensor:
        """(3, 3) in pixels of the picture: the frame's own values, else those for all frames."""
        name = f"{self.path}: frame {self._names[index]}"
        _refuse_distortion(self._number, index, name)
        model = self._frames[index].get("camera_model", self._data.get("camera_model", "PINHOLE"))
        if model not in _PINHOLE_MODELS:
            raise ValueError(
                f"{name} has the camera model {model}: undistort the pictures to a pinhole camera"
            )
        file_width = self._number(index, "w") or float(width)
        file_height = self._number(index, "h") or float(height)
        if abs(file_width * height - file_height * width) > max(width, height):
            raise ValueError(
                f"{name} is said to be {file_width:g} x {file_height:g} pixels, "
                f"its picture is {width} x {height}: correct w and h"
            )
        # A file with one focal length means square pixels.
        focal_x = self._focal(index, "x", file_width, name)
        focal_y = self._focal(index, "y", file_height, name)
        focal_x, focal_y = (
            focal_y if focal_x is None else focal_x,
            focal_x if focal_y is None else focal_y,
        )
        if focal_x is None or focal_y is None:
            raise ValueError(
                f"{name} has no focal length: expected camera_angle_x in radians or fl_x in "
                "pixels, in the frame or for the whole file"
            )
        center_x, center_y = self._number(index, "cx"), self._number(index, "cy")
        matrix = torch.eye(3, dtype=torch.float64)
        matrix[0, 0] = focal_x * width / file_width
        matrix[1, 1] = focal_y * height / file_height
        matrix[0, 2] = (file_width / 2 if center_x is None else center_x) * width / file_width
        matrix[1, 2] = (file_height / 2 if center_y is None else center_y) * height / file_height
        check_intrinsics(matrix, name)
        return matrix

    def _focal(self, index: int, axis: str, size: float, name: str) -> float | None:
        focal = self._number(index, f"fl_{axis}")
        if focal is not None:
            return focal
        angle = self._number(index, f"camera_angle_{axis}")
        if angle is None:
            return None
        if not 0 < angle < math.pi:
            raise ValueError(
                f"{name} has camera_angle_{axis} {angle:g}, expected radians between 0 and pi"
            )
        return size / (2 * math.tan(angle / 2))

    def _number(self, index: int, key: str) -> float | None:
        value = self._frames[index].get(key, self._data.get(key))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(
                f"{self.path}: {key} of frame {self._names[index]} is {value!r}, expected a number"
            )
        return float(value)


def find_transforms(source: Path) -> Path | None:
    """The transforms file that `source` is or, as a folder, holds; None for another source."""
    if source.suffix.lower() == ".json":
        return source
    for name in ("transforms.json", "transforms_train.json"):
        if (source / name).is_file():
            return source / name
    return None


def _parse(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("frames"), list):
        raise ValueError(f'{path} needs a list "frames", each with file_path and transform_matrix')
    if not data["frames"]:
        raise ValueError(f"{path} holds no frames: at least 4 views are needed")
    return data


def _file_path(frame: Any, index: int, path: Path) -> str:
    name = frame.get("file_path") if isinstance(frame, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError(f"{path}: frame {index} needs a file_path, the name of its picture")
    return name.replace("\\", "/")


def _find_picture(transforms: Path, name: str) -> Path:
    # Compared as text, not resolved: a user may link a folder of pictures here, but a file from
    # elsewhere must not name pictures anywhere on this machine.
    relative = os.path.normpath(name)
    if Path(relative).is_absolute() or Path(relative).parts[:1] == ("..",):
        raise ValueError(
            f"{transforms}: the picture {name} lies outside the file's folder: "
            "copy the pictures beside it and name them relative to it"
        )
    plain = transforms.parent / relative
    if plain.is_file():
        return plain
    for suffix in (".png", *sorted(PICTURE_SUFFIXES)):  # NeRF's synthetic scenes leave it out
        candidate = plain.with_name(plain.name + suffix)
        if candidate.is_file():
            return candidate
    raise ValueError(f"{transforms}: the picture {name} does not exist (looked for {plain})")


def _refuse_distortion(number: Any, index: int, name: str) -> None:
    bent = [key for key in _DISTORTIONS if abs(number(index, key) or 0) > 1e-6]
    if bent:
        raise ValueError(
            f"{name} has lens distortion ({', '.join(bent)}), which is not supported: "
            "undistort the pictures and set these to 0"
        )
