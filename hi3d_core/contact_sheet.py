"""Many small pictures on one sheet, row by row, to see at a glance what came of what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_GAP = 4  # pixels between pictures
_LABEL_HEIGHT = 26  # pixels
_TEXT_SIZE = 16  # pixels
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


def contact_sheet(
    rows: Sequence[tuple[str, Tensor | np.ndarray]], *, size: int = 224
) -> Image.Image:
    """Lay out rows of pictures, each under its label.

    rows: (label, pictures (n, H, W, 3), floats in [0, 1]); rows may differ in n, H and W. Every
    picture is fitted into `size` x `size` pixels, its shape kept. Returns an RGB picture.

    Raises ValueError for no rows, a row without pictures or of another shape.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row of pictures")
    if size < 1:
        raise ValueError(f"size is {size} pixels, expected at least 1")
    stacks = [_to_stack(label, pictures) for label, pictures in rows]
    columns = max(len(stack) for stack in stacks)
    step = size + _GAP
    sheet = Image.new(
        "RGB", (columns * step + _GAP, len(rows) * (step + _LABEL_HEIGHT) + _GAP), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_TEXT_SIZE)
    for row, ((label, _), stack) in enumerate(zip(rows, stacks, strict=True)):
        top = row * (step + _LABEL_HEIGHT) + _GAP
        draw.text((_GAP, top + _LABEL_HEIGHT / 2), label, fill=_INK, font=font, anchor="lm")
        for column, pixels in enumerate(stack):
            picture = _fit(Image.fromarray(pixels), size)
            left = _GAP + column * step + (size - picture.width) // 2
            offset = (size - picture.height) // 2
            sheet.paste(picture, (left, top + _LABEL_HEIGHT + offset))
    return sheet


def _to_stack(label: str, pictures: Tensor | np.ndarray) -> np.ndarray:
    values = pictures.detach().cpu().numpy() if isinstance(pictures, Tensor) else pictures
    if values.ndim != 4 or values.shape[3] != 3 or len(values) == 0:
        raise ValueError(f"row {label!r} is {values.shape}, expected pictures (n, H, W, 3)")
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _fit(picture: Image.Image, size: int) -> Image.Image:
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    if (width, height) == picture.size:
        return picture
    return picture.resize((width, height), Image.Resampling.LANCZOS)
