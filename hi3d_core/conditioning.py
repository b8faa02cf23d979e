"""What the video UNet is told beside the noisy latents: one picture token, a vector, latents.

Both stages share the form; `orbit.py` and `refine.py` say what goes in. Letters: F frames, C latent
channels of the condition, D the token's width, A the vector's width, h and w the latent grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .diffusion.guidance import guide
from .diffusion.precondition import Denoiser, v_coefficients
from .networks.feature_reuse import FeatureReuse

Network = Callable[..., Tensor]
"""(latents (B, F, C, h, w), c_noise, context (B, L, D), vector (B, A), reuse=) -> v."""


@dataclass(frozen=True, eq=False)
class Conditioning:
    """One orbit's condition, on the CPU in float32.

    context: (1, 1, D) the image encoder's token. vector: (1, A) sinusoidal embeddings.
    concat: (F, C, h, w) latents (and depth) laid beside the noisy ones, not scaled by 0.18215.

    Without the condition (for guidance) context and concat are zero and the vector stays.
    """

    context: Tensor
    vector: Tensor
    concat: Tensor


def video_denoiser(
    network: Network,
    conditioning: Conditioning,
    scales: Tensor,
    *,
    device: torch.device,
    dtype: torch.dtype,
    batched: bool,
    reuse: FeatureReuse | None = None,
) -> Denoiser:
    """The guided denoiser of one orbit: noisy latents (F, 4, h, w) and sigma -> clean latents.

    network: the video UNet. scales: (F,) guidance of each frame (SVD, Blattmann et al. 2023).
    batched: compute with and without the condition in one call, which is faster and takes twice the
    memory. reuse: keeps features between steps, see `networks.feature_reuse`.

    The arithmetic around the network is in float32 whatever the network computes in.
    """
    context = conditioning.context.to(device, dtype)
    vector = conditioning.vector.to(device, dtype)
    concat = conditioning.concat.to(device, dtype)
    scales = scales.to(device)
    contexts = torch.cat([torch.zeros_like(context), context])
    concats = torch.stack([without_condition(concat), concat])
    vectors = torch.cat([vector, vector])

    def run(noisy: Tensor, c_noise: Tensor, rows: slice) -> Tensor:
        condition = concats[rows]
        latents = torch.cat([noisy.expand(len(condition), *noisy.shape), condition], dim=2)
        if reuse is not None:
            reuse.slot = (rows.start, rows.stop)
        return network(latents, c_noise, contexts[rows], vectors[rows], reuse=reuse).float()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        c_skip, c_out, c_in, c_noise = v_coefficients(sigma)
        noisy, c_noise = (x * c_in).to(dtype), c_noise.to(device)
        if batched:
            unconditional, conditional = run(noisy, c_noise, slice(0, 2))
        else:
            (unconditional,) = run(noisy, c_noise, slice(0, 1))
            (conditional,) = run(noisy, c_noise, slice(1, 2))
        return guide(unconditional * c_out + x * c_skip, conditional * c_out + x * c_skip, scales)

    return denoise


def without_condition(concat: Tensor) -> Tensor:
    """What the unconditional branch gets in place of `concat`: zeros, for the depth too."""
    return torch.zeros_like(concat)
