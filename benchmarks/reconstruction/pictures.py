"""Meshes side by side, as a small JPEG for the documentation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hi3d_core.atomic_file import replacing
from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import Mesh
from hi3d_core.read.mesh_file import read_meshes
from hi3d_core.read.pictures import read_picture
from hi3d_core.read.posed import PosedFile
from hi3d_core.render import over_white, render_mesh

from .cases import cameras_of

_SIDE, _LABEL, _GAP = 300, 22, 4  # pixels
_LARGEST = 150_000  # bytes
_HELD_OUT = 1  # which of the held-out views is shown


def comparison(folder: Path, meshes: Sequence[tuple[str, Path]]) -> Image.Image:
    """A held-out view of an object beside the same view of meshes: colours above, shape below.

    folder: the object's. meshes: (label, file). The shape of the truth is its closed mesh's,
    and every panel is cut to where the object is.
    """
    file = PosedFile(folder / "transforms_test.json").files[_HELD_OUT]
    camera = cameras_of(folder, "transforms_test.json")[[_HELD_OUT]]
    pixels = torch.from_numpy(read_picture(file))
    photo = over_white(pixels[..., :3], pixels[..., 3]) if pixels.shape[2] == 4 else pixels
    panels = [("held-out view", photo, _shape(folder / "gt_closed.ply", camera))]
    for label, mesh in meshes:
        colours = render_mesh(read_meshes(mesh), camera).images[0]
        panels.append((label, colours, _shape(mesh, camera)))
    rows, columns = _object_box([each for panel in panels for each in panel[1:]])
    width, height = len(panels) * (_SIDE + _GAP) + _GAP, 2 * (_SIDE + _GAP) + _LABEL + _GAP
    sheet = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for index, (label, *pictures) in enumerate(panels):
        left = _GAP + index * (_SIDE + _GAP)
        draw.text((left, _LABEL / 2 + 2), label, fill=(40, 40, 40), font=font, anchor="lm")
        for row, picture in enumerate(pictures):
            sheet.paste(_panel(picture[rows, columns]), (left, _LABEL + row * (_SIDE + _GAP)))
    return sheet


def write_jpeg(picture: Image.Image, path: Path, largest: int = _LARGEST) -> None:
    """Write a JPEG of at most `largest` bytes, as good as that allows.

    Raises ValueError if no quality is small enough.
    """
    for quality in range(92, 20, -6):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= largest:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(buffer.getvalue())
            return
    raise ValueError(f"{path} would be larger than {largest} bytes: show fewer meshes")


def _shape(file: Path, camera: Cameras) -> Tensor:
    plain = [Mesh(each.vertices, each.faces) for each in read_meshes(file)]
    return render_mesh(plain, camera, shading="soft").images[0]


def _object_box(pictures: Sequence[Tensor]) -> tuple[slice, slice]:
    """The square around all that is not white, with a little room, within the picture."""
    marked = torch.stack([(each < 0.97).any(dim=-1) for each in pictures]).any(dim=0)
    height, width = marked.shape
    rows, columns = (marked.any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
    if len(rows) == 0:
        return slice(0, height), slice(0, width)
    side = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 17
    side = min(side, height, width)

    def around(span: Tensor, limit: int) -> slice:
        first = int(span[0] + span[-1]) // 2 - side // 2
        first = min(max(first, 0), limit - side)
        return slice(first, first + side)

    return around(rows, height), around(columns, width)


def _panel(picture: Tensor) -> Image.Image:
    pixels = np.rint(picture.clamp(0, 1).numpy() * 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
