"""Whether a model listens to the elevation, and whether it invents more than one back."""

from __future__ import annotations

import torch
from torch import Tensor

from .image_scores import image_scores, resized
from .painter import Painter
from .truth import Truth

WRONG_BY = 20.0  # degrees
_HIGHEST = 40.0  # degrees that models know
_BACK, _BESIDE_FRONT = (6, 7, 8, 9, 10), (1, 15)  # of 16 frames


def elevation_check(painter: Painter, truth: Truth, seed: int) -> dict[str, float]:
    """PSNR of the orbit that is told the true elevation, and of one told a wrong one.

    A model that does not listen has the same in both.
    """
    told = truth.elevation_degrees
    wrong = told + WRONG_BY if told + WRONG_BY <= _HIGHEST else told - WRONG_BY
    scores = {}
    for name, elevation in (("true", told), ("wrong", wrong)):
        frames = painter.paint(truth.frames[0], elevation, seed)
        true = resized(truth.frames, frames.shape[1])
        scores[name] = image_scores(frames, true, None)["psnr"]
    return {**scores, "wrong_degrees": wrong}


def diversity(painter: Painter, truth: Truth, seeds: list[int]) -> dict[str, float]:
    """Standard deviation over seeds, in levels of 255, of the back and beside the front.

    Over the pixels where the true object is. What the picture shows should be sure and what it
    doesn't show may vary; a model that varies nowhere has only learnt a mean.
    """
    orbits = torch.stack(
        [painter.paint(truth.frames[0], truth.elevation_degrees, seed) for seed in seeds]
    )
    varies = orbits.std(dim=0).mean(dim=-1) * 255
    shown = resized(truth.frames, orbits.shape[2]).amin(dim=-1) < 1
    return {
        "back": _mean_over(varies, shown, _BACK),
        "beside_front": _mean_over(varies, shown, _BESIDE_FRONT),
    }


def _mean_over(values: Tensor, shown: Tensor, frames: tuple[int, ...]) -> float:
    return float(values[list(frames)][shown[list(frames)]].mean())
