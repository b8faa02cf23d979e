"""Learned distances between pictures, where package and weights are there; nothing is fetched.

`lpips` is LPIPS (Zhang et al. 2018); its AlexNet is taken from torch's folder of downloads, if it
lies there. `stlpips-pytorch` is ST-LPIPS (Ghildyal and Liu 2022), the same made tolerant of shifts;
its package holds all weights. The two are different measures: each table says which it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hi3d_core.optional import MissingDependency

CHOICES = ("auto", "none", "lpips", "st-lpips")
_ALEXNET = "alexnet-owt-7be5be79.pth"


@dataclass(frozen=True)
class Perceptual:
    """name: as tables have it. distance: (N, H, W, 3) twice, in [0, 1] -> (N,), less is better."""

    name: str
    distance: Callable[[Tensor, Tensor], Tensor]


def open_perceptual(choice: str, say: Callable[[str], None] = print) -> Perceptual | None:
    """The measure of a name; "auto" takes the first that is there, and says so if none is.

    Raises MissingDependency, with what to install, if a named one is not there; ValueError for
    another name.
    """
    if choice not in CHOICES:
        raise ValueError(f"there is no measure {choice!r}: expected one of {', '.join(CHOICES)}")
    if choice == "none":
        return None
    if choice != "auto":
        return {"lpips": _lpips, "st-lpips": _st_lpips}[choice]()
    reasons = []
    for made in (_lpips, _st_lpips):
        try:
            return made()
        except MissingDependency as error:
            reasons.append(str(error))
    say("\n".join([*reasons, "Going on without a learned distance."]))
    return None


def _lpips() -> Perceptual:
    try:
        import lpips
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises the latter
        raise MissingDependency(
            f"LPIPS needs the package lpips, which can't be imported ({error}): pip install lpips "
            "torchvision."
        ) from error
    weights = Path(torch.hub.get_dir()) / "checkpoints" / _ALEXNET
    if not weights.is_file():
        raise MissingDependency(
            f"LPIPS needs AlexNet's weights, and {weights} is not there: torchvision.models.alexnet"
            "(weights='DEFAULT') downloads them."
        )
    return _measure("LPIPS (AlexNet)", lpips.LPIPS(net="alex", verbose=False))


def _st_lpips() -> Perceptual:
    try:
        from stlpips_pytorch import stlpips
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises the latter
        raise MissingDependency(
            f"ST-LPIPS needs the package stlpips-pytorch, which can't be imported ({error}): pip "
            "install stlpips-pytorch torchvision torchsummary ipython."
        ) from error
    network = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    return _measure("ST-LPIPS (AlexNet)", network)


def _measure(name: str, network: torch.nn.Module) -> Perceptual:
    network.eval().requires_grad_(False)

    def distance(pictures: Tensor, others: Tensor) -> Tensor:
        first, second = (each.movedim(-1, 1) * 2 - 1 for each in (pictures, others))
        with torch.no_grad():
            return network(first, second).reshape(-1)

    return Perceptual(name, distance)
