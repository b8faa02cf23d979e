"""The autoencoder between pictures and latents: Stable Diffusion's, frame by frame.

Hi3D decodes its frames one by one with the image decoder, not with SVD's decoder over time. The
networks of both stages see scaled latents; here they are unscaled. Letters: N pictures, H and W
their pixels, h and w the latent grid (an eighth of H and W).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers.models import AutoencoderKL
from torch import Tensor

from ..datatypes import OnStep

LATENT_SCALE = 0.18215
"""What unscaled latents are multiplied by for the video UNet; the conditioning ones are not."""

_TILE_PIXELS = 512


@dataclass(frozen=True)
class VaeConfig:
    """What tells one autoencoder from another; the defaults are the released one's.

    channels: of each level, largest pictures first, multiples of norm_groups; each level but the
        last halves the picture.
    layers_per_block: residual blocks a level of the encoder; the decoder has one more.
    latent_channels: of a latent.
    norm_groups: of every GroupNorm. A group of one channel forgets how strong that channel was,
        and with it colours: narrow networks need fewer groups.

    Raises ValueError for channels that can't be split into groups.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_groups: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON has lists
        if self.norm_groups < 1:
            raise ValueError(f"norm_groups is {self.norm_groups}, expected at least 1")
        if not self.channels or any(channels % self.norm_groups for channels in self.channels):
            raise ValueError(
                f"channels is {self.channels}, expected multiples of {self.norm_groups}"
            )


def build_vae(settings: VaeConfig) -> AutoencoderKL:
    """The network without trained weights; on torch's current default device."""
    levels = len(settings.channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=settings.channels,
        layers_per_block=settings.layers_per_block,
        latent_channels=settings.latent_channels,
        norm_num_groups=settings.norm_groups,
        sample_size=_TILE_PIXELS,
        scaling_factor=LATENT_SCALE,
    )
    vae.settings = settings  # no shape tells the groups
    return vae


def encode_moments(
    vae: AutoencoderKL,
    images: Tensor,
    frames_at_once: int = 1,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """The posterior of pictures' latents.

    images: (N, 3, H, W) in [-1, 1], of the weights' device and number format; H and W multiples of
        8 (of 2 per level but the last).
    frames_at_once: pictures in one call of the network.
    on_step: told of each picture that is done.

    Returns mean (which is also the mode) and log variance, the latter cut to [-30, 20], each
    (N, 4, h, w), unscaled. Raises ValueError for other shapes.
    """
    shrink = _pixels_per_latent(vae)
    _check(images, 3, "images")
    if images.shape[2] % shrink or images.shape[3] % shrink:
        raise ValueError(
            f"images are {images.shape[3]} x {images.shape[2]} pixels, expected multiples of "
            f"{shrink}"
        )
    means, log_variances = [], []
    for part in _parts(images, frames_at_once):
        posterior = vae.encode(part).latent_dist
        means.append(posterior.mean)
        log_variances.append(posterior.logvar)
        _report(on_step, sum(map(len, means)), len(part), len(images))
    return torch.cat(means), torch.cat(log_variances)


def decode(
    vae: AutoencoderKL,
    latents: Tensor,
    frames_at_once: int = 1,
    on_step: OnStep | None = None,
) -> Tensor:
    """Pictures from latents, each by itself.

    latents: (N, 4, h, w), unscaled, of the weights' device and number format. Else as
    `encode_moments`.

    Returns (N, 3, H, W), about [-1, 1] and not cut to it. Raises ValueError for other shapes.
    """
    _check(latents, vae.config["latent_channels"], "latents")
    pictures: list[Tensor] = []
    for part in _parts(latents, frames_at_once):
        pictures.append(vae.decode(part).sample)
        _report(on_step, sum(map(len, pictures)), len(part), len(latents))
    return torch.cat(pictures)


@contextmanager
def tiling(vae: AutoencoderKL, tiled: bool, side: int = _TILE_PIXELS) -> Iterator[None]:
    """Have the autoencoder work in overlapping square tiles inside the block, if `tiled`.

    Then memory depends on the tile and not on the picture. But group norms and attention see a
    tile instead of the picture, so the result differs, and not faintly: for a small autoencoder
    trained for some minutes, pictures of 256 pixels decoded in tiles of 192 were 22 dB (PSNR) from
    the whole ones, in tiles of 128 16 dB. Better decode frame by frame, and tile as a last resort.

    side: of a tile in pixels, a multiple of 32; pictures up to this size are not split.
    """
    step = 4 * _pixels_per_latent(vae)  # tiles overlap by a quarter
    if side % step or side <= 0:
        raise ValueError(f"the tiles' side is {side} pixels, expected a multiple of {step}")
    before = vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size
    try:
        vae.use_tiling = tiled
        vae.tile_sample_min_size = side
        vae.tile_latent_min_size = side // _pixels_per_latent(vae)
        yield
    finally:
        vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size = before


def _pixels_per_latent(vae: AutoencoderKL) -> int:
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


def _parts(tensor: Tensor, rows: int) -> Iterator[Tensor]:
    """Some rows at a time, in the memory order in which the network is exact.

    With channels_last strides, as of a picture made from an array (H, W, 3), GroupNorm on the CPU
    loses digits on flat areas, and the encoder is off by 3e-4.
    """
    if rows < 1:
        raise ValueError(f"frames_at_once is {rows}, expected at least 1")
    for part in tensor.split(rows):
        yield part.contiguous()


def _report(on_step: OnStep | None, done: int, new: int, total: int) -> None:
    if on_step is not None:
        for count in range(done - new + 1, done + 1):
            on_step(count, total)


def _check(tensor: Tensor, channels: int, name: str) -> None:
    if tensor.ndim != 4 or tensor.shape[1] != channels or len(tensor) == 0:
        raise ValueError(
            f"{name} is {tuple(tensor.shape)}, expected (N, {channels}, height, width), "
            "N at least 1"
        )
