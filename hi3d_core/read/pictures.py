"""One picture file as floats: any mode, depth and orientation that Pillow reads."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

# Pillow's decoders raise all of these for broken data.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    EOFError,
    LookupError,
    ArithmeticError,
    ValueError,
    TypeError,
    RuntimeError,
    struct.error,
)

_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B")


@contextmanager
def opening(path: object, file: IO[bytes] | None = None) -> Iterator[Image.Image]:
    """Open a picture file; whatever goes wrong inside is a ValueError that names the file.

    file: where its bytes come from, if it lies within another file; `path` is then its name alone.
    So only decode inside, and judge what was decoded after it.
    """
    try:
        with Image.open(file or path) as image:  # type: ignore[arg-type]
            yield image
    except FileNotFoundError as error:
        raise ValueError(f"the picture {path} does not exist") from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"the picture {path} is too large ({error}): "
            "scale it down to 4096 pixels a side or less"
        ) from error
    except _DECODER_ERRORS as error:
        raise ValueError(
            f"the picture {path} can't be read ({error}): "
            "it may be cut off or damaged; export it again"
        ) from error


def read_picture(path: Path) -> np.ndarray:
    """The colours of a picture, upright (its EXIF orientation is applied).

    Returns (H, W, 3) float32 in [0, 1], or (H, W, 4) with straight alpha if the file has alpha.
    Raises ValueError naming a file that is missing, damaged or no picture.
    """
    with opening(path) as image:
        return picture_to_array(ImageOps.exif_transpose(image))


def picture_to_array(image: Image.Image) -> np.ndarray:
    """(H, W, 3 or 4) float32 colours of any Pillow picture, straight alpha last.

    Integers are scaled to [0, 1]; a floating-point picture is taken as it is.
    """
    if image.mode == "F" or image.mode in _SIXTEEN_BIT:
        grey = np.asarray(image).astype(np.float32)
        if image.mode != "F":
            grey /= 65535.0
        return np.repeat(grey[..., None], 3, axis=2)
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if image.mode in ("RGBa", "La"):  # premultiplied: only RGBa converts, and only to RGBA
        image = image.convert("RGBa").convert("RGBA")
    colors = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    return colors.astype(np.float32) / 255.0
