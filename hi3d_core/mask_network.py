"""Find an object on any background with U²-Net's small variant (Qin et al. 2020), through ONNX.

The model file lies in `models/`, with its licence and origin. onnxruntime is an optional package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from . import optional
from .resize import resize_array

MODEL_PATH = Path(__file__).parent / "models" / "u2netp.onnx"
MODEL_SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"

_SIZE = 320
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def network_alphas(pictures: np.ndarray, model_path: Path = MODEL_PATH) -> Iterator[np.ndarray]:
    """Coverage of the most salient object, for one picture after the other.

    pictures: (V, H, W, 3) float32 in [0, 1]. Yields (H, W) float32 in [0, 1]: the network's
    answer at 320 x 320, with its outline drawn along the picture's own edges (`refine_alpha`).

    Raises MissingDependency without onnxruntime, ValueError if the model file is not the one
    that belongs to this version.
    """
    session = _load(model_path)
    name = session.get_inputs()[0].name
    height, width = pictures.shape[1:3]
    for picture in pictures:
        small = np.clip(resize_array(picture, _SIZE, _SIZE), 0, 1)
        small = (small / max(float(small.max()), 1e-6) - _MEAN) / _DEVIATION
        batch = small.transpose(2, 0, 1)[None].astype(np.float32)
        answer = session.run(None, {name: batch})[0][0, 0]
        low, high = float(answer.min()), float(answer.max())
        answer = (answer - low) / max(high - low, 1e-6)
        coarse = np.clip(resize_array(answer, width, height), 0, 1)
        yield refine_alpha(picture, coarse)


def refine_alpha(picture: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Draw the outline of a blurry mask along the edges of the picture.

    A guided filter (He et al. 2010) with a colour guide: within a window the alpha is an affine
    function of the colour. picture: (H, W, 3), coarse: (H, W), in [0, 1]. Returns (H, W) float32
    in [0, 1], steepened so that the object's inside is 1 and the background 0.
    """
    size = 2 * max(2, round(min(coarse.shape) / 128)) + 1

    def mean(values: np.ndarray) -> np.ndarray:
        sizes = (size, size) + (1,) * (values.ndim - 2)
        return ndimage.uniform_filter(values, sizes)

    guide, target = picture.astype(np.float64), coarse.astype(np.float64)
    guide_mean, target_mean = mean(guide), mean(target)
    covariance = mean(guide * target[..., None]) - guide_mean * target_mean[..., None]
    variance = mean(guide[..., :, None] * guide[..., None, :])
    variance -= guide_mean[..., :, None] * guide_mean[..., None, :]
    slope = np.linalg.solve(variance + 1e-4 * np.eye(3), covariance[..., None])[..., 0]
    offset = target_mean - (slope * guide_mean).sum(axis=2)
    alpha = (mean(slope) * guide).sum(axis=2) + mean(offset)
    return np.clip((alpha - 0.5) * 2.5 + 0.5, 0, 1).astype(np.float32)


@lru_cache(maxsize=1)
def _load(path: Path) -> Any:
    runtime = optional.require("onnxruntime", for_="finding the object on a busy background")
    if not path.is_file():
        raise ValueError(f"the model {path} is missing: install the package again")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != MODEL_SHA256:
        raise ValueError(
            f"the model {path} is damaged: its SHA-256 is {digest}, expected {MODEL_SHA256}; "
            "install the package again"
        )
    return runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
