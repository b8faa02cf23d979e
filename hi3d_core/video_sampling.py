"""What both diffusion stages do alike: draw noise, solve from noise to latents, decode the frames.

Letters: F frames, S the frames' side in pixels, h and w the latent grid.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .conditioning import Conditioning, video_denoiser
from .datatypes import OnPreview, OnStep
from .diffusion.guidance import frame_scales
from .diffusion.preview import LatentPreview
from .diffusion.sampling import SOLVERS, BeforeStep
from .model_defaults import SampleSettings
from .networks.feature_reuse import FeatureReuse
from .networks.image_encoder import embed_image
from .networks.vae import LATENT_SCALE, decode, encode_moments, tiling
from .networks.video_unet import chunk_feed_forward
from .progress import Progress
from .sample_options import SampleOptions, guides_at_once
from .video_model import VideoModel, device_of, dtype_of, like_weights, placed

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from .orbit import OrbitConfig
    from .refine import RefineConfig

_log = logging.getLogger(__name__)


def advancing(progress: Progress | None) -> OnStep | None:
    """An `on_step` for a loop inside a stage: each of its steps is one unit."""
    return None if progress is None else lambda done, total: progress.step()


def check_size(size: int) -> None:
    """Refuse sides that the networks can't take."""
    if size % 64 or not 64 <= size <= 4096:
        raise ValueError(f"size is {size} pixels, expected a multiple of 64 from 64 to 4096")


def settled(model: VideoModel, config: OrbitConfig | RefineConfig) -> SampleSettings:
    """How an orbit is sampled, the model being asked for what the configuration leaves open.

    A small model that is to paint other frames than it was trained on is worth a warning.
    Raises ValueError for a side that the networks can't take and a solver that there is not.
    """
    chosen = model.defaults.choose(config.size, config.solver, config.steps, config.guidance)
    check_size(chosen.size)
    trained = model.defaults.frame_size
    if model.defaults.is_small and chosen.size != trained:
        _log.warning(
            "this %s model was trained on frames of %d pixels and shall paint %d: leave the size "
            "to the model",
            *(model.stage, trained, chosen.size),
        )
    return chosen


def to_network(pictures: Tensor, name: str) -> Tensor:
    """(N, H, W, 3) in [0, 1] -> (N, 3, H, W) float32 in [-1, 1] on the CPU, contiguous."""
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or 0 in pictures.shape:
        raise ValueError(f"{name} is {tuple(pictures.shape)}, expected (..., height, width, 3)")
    pictures = pictures.detach().float().cpu()
    low, high = pictures.aminmax()
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise ValueError(f"{name} holds values from {low:g} to {high:g}, expected 0 to 1")
    # Strides as of a permuted picture cost accuracy in the autoencoder's norms.
    return (pictures * 2 - 1).permute(0, 3, 1, 2).contiguous()


def embed_token(model: VideoModel, image: Tensor, device: torch.device | None) -> Tensor:
    """The image encoder's token (1, 1, D) of a clean picture (1, 3, S, S), float32 on the CPU."""
    with placed(model.image_encoder, device) as encoder, torch.no_grad():
        return embed_image(encoder, like_weights(image, encoder)).float().cpu()[:, None]


def encode_frames(
    vae: AutoencoderKL,
    images: Tensor,
    options: SampleOptions,
    *,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and log variance of pictures' latents, unscaled, each (N, 4, h, w) float32 on the CPU.

    images: (N, 3, S, S) in [-1, 1]. Raises FloatingPointError if the network overflows.
    """
    with placed(vae, device), torch.no_grad(), tiling(vae, options.tiled):
        mean, log_variance = encode_moments(
            vae, like_weights(images, vae), options.frames_at_once, on_step=advancing(progress)
        )
    _check_finite(mean, "encoding in the autoencoder")
    return mean.float().cpu(), log_variance.float().cpu()


def draw(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
    """Unit normal noise, float32 on the CPU: a seed gives the same everywhere."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


def sample_latents(
    model: VideoModel,
    conditioning: Conditioning,
    noise: Tensor,
    *,
    solver: str,
    steps: int,
    guidance: tuple[float, float],
    options: SampleOptions,
    device: torch.device | None = None,
    before_step: BeforeStep | None = None,
    progress: Progress | None = None,
    preview: LatentPreview | None = None,
    on_preview: OnPreview | None = None,
) -> Tensor:
    """Solve from unit normal noise (F, 4, h, w) to clean latents, scaled by 0.18215.

    before_step: see `diffusion.sampling`. preview, on_preview: a picture after each step.
    Returns float32 on the CPU. Raises FloatingPointError if the network overflows.
    """
    method = SOLVERS[solver]
    with placed(model.unet, device) as unet, torch.no_grad():
        where, dtype = device_of(unet), dtype_of(unet)
        sigmas = method.sigmas(steps).to(where)
        chunk_feed_forward(unet, options.feed_forward_chunks)
        denoise = video_denoiser(
            torch.compile(unet) if options.compiled else unet,
            conditioning,
            frame_scales(*guidance, model.frames),
            device=where,
            dtype=dtype,
            batched=guides_at_once(options, unet, noise.shape, where),
            reuse=FeatureReuse(options.reuse_every) if options.reuse_every > 1 else None,
        )

        def on_denoised(index: int, denoised: Tensor) -> None:
            if preview is not None and on_preview is not None:
                on_preview(preview(denoised.cpu() / LATENT_SCALE))

        latents = method.solve(
            denoise,
            noise.to(where) * torch.sqrt(1 + sigmas[0] ** 2),
            sigmas,
            before_step=before_step,
            on_step=advancing(progress),
            on_denoised=on_denoised,
        ).cpu()
    _check_finite(latents, f"the {model.stage}'s video UNet")
    return latents


def decode_frames(
    model: VideoModel,
    latents: Tensor,
    options: SampleOptions,
    *,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Decode latents (F, 4, h, w), scaled by 0.18215, to pictures (F, S, S, 3) on the CPU.

    Every frame by itself, as the official code does. Values are cut to [0, 1] and truncated to
    multiples of 1/255, so that frames kept as 8-bit files are these very frames.
    """
    with placed(model.vae, device) as vae, torch.no_grad(), tiling(vae, options.tiled):
        decoded = decode(
            vae,
            like_weights(latents / LATENT_SCALE, vae),
            options.frames_at_once,
            on_step=advancing(progress),
        )
    _check_finite(decoded, "decoding in the autoencoder")
    pictures = (decoded.float().cpu() * 0.5 + 0.5).clamp(0, 1)
    return (pictures * 255).trunc().permute(0, 2, 3, 1).contiguous() / 255


def _check_finite(values: Tensor, what: str) -> None:
    if not torch.isfinite(values).all():
        raise FloatingPointError(
            f"{what} gave values that are not finite: use float32 (--dtype fp32)"
        )
