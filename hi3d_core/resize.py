"""Resizing of pictures held as float arrays."""

from __future__ import annotations

import numpy as np
from PIL import Image


def resize_array(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize (H, W) or (H, W, C) floats with an antialiasing triangle filter."""
    if values.ndim == 3:
        channels = [resize_array(values[..., c], width, height) for c in range(values.shape[2])]
        return np.stack(channels, axis=2)
    resized = Image.fromarray(values.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.asarray(resized)
