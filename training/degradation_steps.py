"""What can happen to a clean video on its way to a bad one: one class a step, all choices in it.

Every step is called with frames and gives frames, float32 in about [0, 1]. Letters: F frames, H and
W their pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from kornia.filters import filter2d
from torch import Tensor
from torch.nn import functional

from .jpeg import compress

Mode = Literal["area", "bilinear", "bicubic"]
MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")

_GREY = (0.2989, 0.587, 0.114)


class DegradationStep(Protocol):
    """One change of a video."""

    def __call__(self, frames: Tensor) -> Tensor:
        """(F, 3, H, W) -> (F, 3, H', W')."""
        ...


@dataclass(frozen=True, eq=False)
class Blur:
    """Filter each frame with its kernel, mirrored at the border. kernels: (F, K, K), K odd."""

    kernels: Tensor

    def __call__(self, frames: Tensor) -> Tensor:
        # A mirror shows no more than the picture; a smaller one is mirrored again and again.
        margin = self.kernels.shape[-1] // 2
        if min(frames.shape[2:]) > margin:
            return filter2d(frames, self.kernels.to(frames), border_type="reflect")
        wide = functional.pad(frames, [margin] * 4, mode="replicate")
        return filter2d(wide, self.kernels.to(frames), padding="valid")


@dataclass(frozen=True)
class Resize:
    """Resize by a factor, or to a size (height, width)."""

    mode: Mode
    factor: float | None = None
    size: tuple[int, int] | None = None

    def __call__(self, frames: Tensor) -> Tensor:
        return functional.interpolate(
            frames, size=self.size, scale_factor=self.factor, mode=self.mode
        )


@dataclass(frozen=True, eq=False)
class GaussianNoise:
    """Add normal noise, and cut to [0, 1].

    sigmas: (F,) in steps of 8 bits. grey: (F,) whether a frame's channels get the same; all these
    frames share one pattern, as in the released code. seed: of the noise.
    """

    sigmas: Tensor
    grey: Tensor
    seed: int

    def __call__(self, frames: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        pattern = torch.randn(frames.shape[2:], generator=generator)
        noise = torch.randn(frames.shape, generator=generator)
        noise = torch.where(self.grey[:, None, None, None], pattern, noise)
        noise = noise * (self.sigmas[:, None, None, None] / 255)
        return (frames + noise.to(frames)).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class PoissonNoise:
    """Add the noise of counted light, and cut to [0, 1].

    scales: (F,) what the noise is multiplied by. grey: (F,) whether a frame's channels get the
    same, that of its brightness. seed: of the noise.
    """

    scales: Tensor
    grey: Tensor
    seed: int

    def __call__(self, frames: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.stack(
            [
                counting_noise(brightness(frame) if grey else frame, generator).expand_as(frame)
                for frame, grey in zip(frames.float().cpu(), self.grey.tolist(), strict=True)
            ]
        )
        noise = noise * self.scales[:, None, None, None]
        return (frames + noise.to(frames)).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Jpeg:
    """Compress each frame, cut to [0, 1] before. quality: (F,)."""

    quality: Tensor

    def __call__(self, frames: Tensor) -> Tensor:
        return compress(frames.clamp(0, 1), self.quality)


@dataclass(frozen=True)
class ToBytes:
    """Cut to [0, 1] and round to multiples of 1/255."""

    def __call__(self, frames: Tensor) -> Tensor:
        return (frames.clamp(0, 1) * 255).round() / 255


@dataclass(frozen=True, eq=False)
class EraseParts:
    """Paint parts of the frames white, so that shapes look bitten and torn (Hi3D, section 3.3).

    erased: (F, h, w) booleans on any grid; edges between its cells are smooth. Frame 0 stays, as it
    will be the clean picture.
    """

    erased: Tensor

    def __call__(self, frames: Tensor) -> Tensor:
        cover = functional.interpolate(
            self.erased[:, None].to(frames), frames.shape[2:], mode="bicubic"
        )
        cover = (4 * (cover - 0.5) + 0.5).clamp(0, 1)
        cover[0] = 0
        return frames + cover * (1 - frames)


def brightness(frame: Tensor) -> Tensor:
    """(3, H, W) -> (1, H, W)."""
    return torch.einsum("c,chw->hw", frame.new_tensor(_GREY), frame)[None]


def counting_noise(frame: Tensor, generator: torch.Generator) -> Tensor:
    """What counting light changes in a frame (C, H, W), of as many levels as it has values.

    With m levels, the least power of two that holds the frame's 8-bit values, a value p becomes
    Poisson(m p) / m.
    """
    values = (frame * 255).round().clamp(0, 255) / 255
    levels = 2 ** math.ceil(math.log2(max(1, torch.unique(values).numel())))
    return torch.poisson(values * levels, generator=generator) / levels - values
