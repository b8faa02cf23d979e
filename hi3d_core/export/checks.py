"""What the writers share: the check of a mesh, the bytes of a texture, and our name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from .. import __version__
from ..datatypes import Mesh

GENERATOR = f"Hi3D for ComfyUI {__version__}"  # what files say wrote them


def faces_to_write(mesh: Mesh, path: str | Path) -> Tensor:
    """The faces (M, 3) on the CPU without those that name one vertex twice.

    Such faces have no area and taking them out opens no hole. Raises ValueError if none is left.
    """
    faces = mesh.faces.detach().cpu()
    a, b, c = faces.unbind(1)
    faces = faces[(a != b) & (b != c) & (c != a)]
    if len(faces) == 0:
        raise ValueError(f"the mesh for {path} has no faces: there is nothing to write")
    return faces


def to_bytes(colors: Tensor) -> np.ndarray:
    """Colours in [0, 1] of any shape as uint8, rounded."""
    scaled = colors.detach().cpu().float().clamp(0, 1) * 255
    return scaled.round().numpy().astype(np.uint8)


def encode_picture(texture: Tensor, jpeg_quality: int | None) -> bytes:
    """A texture (H, W, 3) as the bytes of a PNG file, or of a JPEG file of the quality given."""
    stream = io.BytesIO()
    picture = Image.fromarray(to_bytes(texture))
    if jpeg_quality is None:
        picture.save(stream, "PNG")
    else:
        # 4:4:4: halved colour resolution would bleed across the borders of an atlas's charts.
        picture.save(stream, "JPEG", quality=jpeg_quality, subsampling=0)
    return stream.getvalue()
