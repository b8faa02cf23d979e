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


def elevation_check(painter: Painter, truth: Truth, orbit: Tensor, seed: int) -> dict[str, float]:
    """PSNR of the orbit that is told the true elevation, and of one told a wrong one.

    A model that does not listen has the same in both. orbit: the true one's, painted with `seed`.
    """
    told = truth.elevation_degrees
    wrong = told + WRONG_BY if told + WRONG_BY <= _HIGHEST else told - WRONG_BY
    misled = painter.paint(truth.frames[0], wrong, seed)
    true = resized(truth.frames, orbit.shape[1])
    return {
        "true": image_scores(orbit, true, None)["psnr"],
        "wrong": image_scores(misled, true, None)["psnr"],
        "wrong_degrees": wrong,
    }


def diversity(painter: Painter, truth: Truth, orbit: Tensor, more_seeds: range) -> dict[str, float]:
    """Standard deviation over seeds, in levels of 255, of the back and beside the front.

    Over the pixels where the true object is. What the picture shows should be sure and what it
    doesn't show may vary; a model that varies nowhere has only learnt a mean. orbit: of another
    seed than `more_seeds`.
    """
    more = [painter.paint(truth.frames[0], truth.elevation_degrees, seed) for seed in more_seeds]
    orbits = torch.stack([orbit, *more])
    varies = orbits.std(dim=0).mean(dim=-1) * 255
    shown = resized(truth.frames, orbits.shape[2]).amin(dim=-1) < 1
    return {
        "back": _mean_over(varies, shown, _BACK),
        "beside_front": _mean_over(varies, shown, _BESIDE_FRONT),
    }


def _mean_over(values: Tensor, shown: Tensor, frames: tuple[int, ...]) -> float:
    return float(values[list(frames)][shown[list(frames)]].mean())
