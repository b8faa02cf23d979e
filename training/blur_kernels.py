"""The blur kernels of the degradation: Gaussians and their relatives, and low passes that ring.

The family and its shares are Real-ESRGAN's (Wang et al. 2021, section 3); the shapes of the
generalized Gaussian and the plateau are those of Liu et al. 2020. Letters: K the kernel's side in
pixels, odd; q the squared Mahalanobis distance of a pixel from the centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from .draws import chance, choice, uniform

SIDE = 21  # of every kernel once padded with zeros
_SIDES = tuple(range(7, SIDE + 1, 2))
_SMALL = 13  # below it a low pass must not cut too deep

Profile = Literal["gaussian", "generalized", "plateau"]


@dataclass(frozen=True)
class KernelConfig:
    """Which kernels are drawn, and how often.

    sinc: the share of low passes. sigma: pixels. generalized, plateau: ranges of the exponent.
    shares: of round and elongated Gaussians, generalized Gaussians and plateaus, in this order.
    """

    sinc: float = 0.1
    sigma: tuple[float, float] = (0.2, 3.0)
    generalized: tuple[float, float] = (0.5, 4.0)
    plateau: tuple[float, float] = (1.0, 2.0)
    shares: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)


FIRST_KERNELS = KernelConfig()
SECOND_KERNELS = KernelConfig(sigma=(0.2, 1.5))


def bell(
    side: int,
    sigmas: tuple[float, float],
    rotation: float = 0.0,
    exponent: float = 1.0,
    profile: Profile = "gaussian",
) -> Tensor:
    """A kernel that falls from its centre, (K, K) float32 of sum 1.

    sigmas: pixels, along x and y before the rotation (radians).
    gaussian: exp(-q / 2). generalized: exp(-q^exponent / 2). plateau: 1 / (1 + q^exponent).
    """
    x, y = _offsets(side)
    cosine, sine = math.cos(rotation), math.sin(rotation)
    along, across = cosine * x + sine * y, cosine * y - sine * x
    q = (along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2
    if profile == "plateau":
        kernel = 1 / (1 + q**exponent)
    else:
        kernel = torch.exp(-0.5 * (q if profile == "gaussian" else q**exponent))
    return (kernel / kernel.sum()).float()


def low_pass(side: int, cutoff: float) -> Tensor:
    """The circular low pass of a cut-off frequency (radians a pixel), (K, K) float32 of sum 1.

    cutoff J1(cutoff r) / (2 pi r), whose limit at the centre is cutoff^2 / (4 pi).
    """
    x, y = _offsets(side)
    distance = torch.sqrt(x**2 + y**2)
    kernel = cutoff * torch.special.bessel_j1(cutoff * distance) / (2 * math.pi * distance)
    kernel[side // 2, side // 2] = cutoff**2 / (4 * math.pi)
    return (kernel / kernel.sum()).float()


def delta() -> Tensor:
    """The kernel that changes nothing, (21, 21)."""
    return padded(torch.ones(1, 1))


def padded(kernel: Tensor) -> Tensor:
    """(K, K) with zeros around it, (21, 21)."""
    margin = (SIDE - kernel.shape[0]) // 2
    return functional.pad(kernel, [margin] * 4)


def draw_kernel(generator: torch.Generator, config: KernelConfig = FIRST_KERNELS) -> Tensor:
    """One frame's blur kernel, (21, 21)."""
    side = int(choice(generator, _SIDES))
    if chance(generator, config.sinc):
        lowest = math.pi / 3 if side < _SMALL else math.pi / 5
        return padded(low_pass(side, uniform(generator, lowest, math.pi)))
    kind = choice(generator, range(len(config.shares)), config.shares)
    profile: Profile = ("gaussian", "generalized", "plateau")[kind // 2]
    width = uniform(generator, *config.sigma)
    height, rotation = width, 0.0
    if kind % 2:
        height = uniform(generator, *config.sigma)
        rotation = uniform(generator, -math.pi, math.pi)
    exponent = 1.0
    if profile != "gaussian":
        low, high = config.generalized if profile == "generalized" else config.plateau
        # Below and above 1 equally often, however unequal the two ranges are.
        is_low = chance(generator, 0.5)
        exponent = uniform(generator, low, 1) if is_low else uniform(generator, 1, high)
    return padded(bell(side, (width, height), rotation, exponent, profile))


def draw_final_kernel(generator: torch.Generator, share: float = 0.8) -> Tensor:
    """One frame's last kernel, (21, 21): a low pass with this share, else nothing happens."""
    if not chance(generator, share):
        return delta()
    side = int(choice(generator, _SIDES))
    return padded(low_pass(side, uniform(generator, math.pi / 3, math.pi)))


def _offsets(side: int) -> tuple[Tensor, Tensor]:
    """Each pixel's place right of and below the centre, (K, K) float64."""
    line = torch.arange(side, dtype=torch.float64) - side // 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y
