"""From a clean orbit to one as stage 1 might have painted it: what the refiner learns to mend.

Blur, resizing, noise and JPEG, twice, with kernels that ring at the end (Real-ESRGAN, Wang et al.
2021, section 3), in the order and with the shares of Hi3D's released training; Hi3D's paper
(section 3.3) also speaks of random masking, which is an option here. Choices are drawn first, as a
list of steps, then done. Letters: F frames, H and W their pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .blur_kernels import (
    FIRST_KERNELS,
    SECOND_KERNELS,
    KernelConfig,
    draw_final_kernel,
    draw_kernel,
)
from .degradation_steps import (
    MODES,
    Blur,
    DegradationStep,
    EraseParts,
    GaussianNoise,
    Jpeg,
    PoissonNoise,
    Resize,
    ToBytes,
)
from .draws import chance, choice, uniform

_SHRINK = 4  # the second round works at a quarter of the size


@dataclass(frozen=True)
class RoundConfig:
    """One round of blur, resizing, noise and JPEG; the defaults are the first round's.

    blur: how often at all. kernels: which. enlarge, shrink: how often; else the size stays.
    factors: least and greatest factor of resizing. gaussian: how often noise is normal; else it is
    that of counted light. sigma: of normal noise, in steps of 8 bits. poisson: factors of the
    other.
    grey: how often a frame's noise has no colour. quality: of JPEG.
    """

    blur: float = 1.0
    kernels: KernelConfig = FIRST_KERNELS
    enlarge: float = 0.2
    shrink: float = 0.7
    factors: tuple[float, float] = (0.15, 1.5)
    gaussian: float = 0.5
    sigma: tuple[float, float] = (1.0, 30.0)
    poisson: tuple[float, float] = (0.05, 3.0)
    grey: float = 0.4
    quality: tuple[float, float] = (30.0, 95.0)


SECOND_ROUND = RoundConfig(
    blur=0.8,
    kernels=SECOND_KERNELS,
    enlarge=0.3,
    shrink=0.4,
    factors=(0.3, 1.2),
    sigma=(1.0, 25.0),
    poisson=(0.05, 2.5),
)


@dataclass(frozen=True)
class DegradationConfig:
    """What the clean frames go through.

    first, second: the rounds. final_sinc: how often a frame's last kernel is a low pass.
    erase: how often a video's shapes are torn by random masking; the released code never does.
    erased: least and greatest share of the picture that is erased then. blobs: pieces of erased
    shape across a frame.
    """

    first: RoundConfig = field(default_factory=RoundConfig)
    second: RoundConfig = SECOND_ROUND
    final_sinc: float = 0.8
    erase: float = 0.0
    erased: tuple[float, float] = (0.02, 0.15)
    blobs: int = 8


def degrade(
    clean: Tensor,
    background: Tensor,
    generator: torch.Generator,
    config: DegradationConfig | None = None,
) -> Tensor:
    """The refiner's training input, made of clean frames.

    clean: (F, 3, H, W) in [-1, 1]. background: (F, H, W) true where alpha is exactly 0; it becomes
    white. generator: on the CPU.
    Returns (F, 3, H, W) in about [-1, 1] on the device of `clean`; frame 0 is the clean one.
    Raises ValueError for other shapes.
    """
    if clean.ndim != 4 or clean.shape[1] != 3 or background.shape != clean[:, 0].shape:
        raise ValueError(
            f"clean is {tuple(clean.shape)} and background {tuple(background.shape)}, expected "
            "(F, 3, height, width) and (F, height, width) of the same size"
        )
    steps = draw_steps(generator, len(clean), (clean.shape[2], clean.shape[3]), config)
    frames = (clean + 1) / 2
    for step in steps:
        frames = step(frames)
    return finished(frames, clean, background)


def finished(frames: Tensor, clean: Tensor, background: Tensor) -> Tensor:
    """Degraded frames in [0, 1] -> network range, white behind the object, frame 0 clean."""
    frames = torch.where(background[:, None].to(frames.device), 1.0, frames) * 2 - 1
    return torch.cat([clean[:1], frames[1:]])


def draw_steps(
    generator: torch.Generator,
    frames: int,
    size: tuple[int, int],
    config: DegradationConfig | None = None,
) -> list[DegradationStep]:
    """All choices for one video of this many frames of size (height, width).

    Kernels, strengths and colour of noise, and quality are drawn for each frame; everything else
    once for the video.
    """
    config = config or DegradationConfig()
    quarter = (size[0] // _SHRINK, size[1] // _SHRINK)
    steps: list[DegradationStep] = []
    if chance(generator, config.erase):
        steps.append(_erasing(generator, frames, config))
    first, second = config.first, config.second
    steps += _blurs(generator, frames, first)
    steps.append(Resize(choice(generator, MODES), factor=_factor(generator, first)))
    steps += [_noise(generator, frames, first), _jpeg(generator, frames, first)]
    steps += _blurs(generator, frames, second)
    factor = _factor(generator, second)
    inner = (max(1, int(size[0] / _SHRINK * factor)), max(1, int(size[1] / _SHRINK * factor)))
    steps.append(Resize(choice(generator, MODES), size=inner))
    steps.append(_noise(generator, frames, second))
    steps += _ending(generator, frames, quarter, config)
    steps += [ToBytes(), Resize(choice(generator, MODES), size=size)]
    return steps


def _blurs(generator: torch.Generator, frames: int, config: RoundConfig) -> list[DegradationStep]:
    kernels = torch.stack([draw_kernel(generator, config.kernels) for _ in range(frames)])
    return [Blur(kernels)] if chance(generator, config.blur) else []


def _factor(generator: torch.Generator, config: RoundConfig) -> float:
    """How much larger, or smaller, the video becomes."""
    shares = (config.enlarge, config.shrink, max(0.0, 1 - config.enlarge - config.shrink))
    ranges = ((1.0, config.factors[1]), (config.factors[0], 1.0), (1.0, 1.0))
    return uniform(generator, *choice(generator, ranges, shares))


def _noise(generator: torch.Generator, frames: int, config: RoundConfig) -> DegradationStep:
    is_gaussian = chance(generator, config.gaussian)
    strengths = _each(generator, frames, config.sigma if is_gaussian else config.poisson)
    grey = torch.rand(frames, generator=generator) < config.grey
    seed = int(torch.randint(2**62, (), generator=generator))
    return (GaussianNoise if is_gaussian else PoissonNoise)(strengths, grey, seed)


def _jpeg(generator: torch.Generator, frames: int, config: RoundConfig) -> DegradationStep:
    return Jpeg(_each(generator, frames, config.quality))


def _ending(
    generator: torch.Generator, frames: int, quarter: tuple[int, int], config: DegradationConfig
) -> list[DegradationStep]:
    """To a quarter of the size with ringing, and JPEG, in either order."""
    kernels = [draw_final_kernel(generator, config.final_sinc) for _ in range(frames)]
    ringing: list[DegradationStep] = [
        Resize(choice(generator, MODES), size=quarter),
        Blur(torch.stack(kernels)),
    ]
    jpeg = _jpeg(generator, frames, config.second)
    return [*ringing, jpeg] if chance(generator, 0.5) else [jpeg, *ringing]


def _erasing(generator: torch.Generator, frames: int, config: DegradationConfig) -> DegradationStep:
    noise = torch.rand(frames, config.blobs, config.blobs, generator=generator)
    return EraseParts(noise < uniform(generator, *config.erased))


def _each(generator: torch.Generator, frames: int, limits: tuple[float, float]) -> Tensor:
    low, high = limits
    return low + (high - low) * torch.rand(frames, generator=generator)
