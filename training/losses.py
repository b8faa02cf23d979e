"""What both stages minimise: the squared error of v, over latents of a whole orbit.

Letters: B orbits, F frames, h and w the latent grid, C channels of the condition; x clean latents,
n noise, sigma its level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hi3d_core.conditioning import Conditioning
from hi3d_core.diffusion.precondition import v_coefficients

from .noise_levels import keep_mask

LATENT_CHANNELS = 4  # of the concatenated condition's last channels, which can be dropped

VideoNetwork = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(latents (B, F, C + 4, h, w), c_noise (B,), context, vector) -> v (B, F, 4, h, w)."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network said of a batch and what it should have said, both (B, F, 4, h, w)."""

    v: Tensor
    target: Tensor

    @property
    def squared_error(self) -> Tensor:
        """(B, F, 4, h, w)."""
        return (self.v - self.target) ** 2

    @property
    def per_frame(self) -> Tensor:
        """The loss of each frame, (B, F)."""
        return self.squared_error.mean(dim=(2, 3, 4))

    @property
    def loss(self) -> Tensor:
        """The mean over everything, a scalar."""
        return self.per_frame.mean()


def v_target(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """What the network should say: (n - sigma x) / sqrt(sigma^2 + 1).

    That is (x - c_skip (x + sigma n)) / c_out with the coefficients of `v_coefficients`, without
    the cancellation that a small sigma brings. clean, noise: (B, ...). sigma: (B,).
    """
    _, c_out, c_in, _ = v_coefficients(_beside(sigma, clean))
    return c_in * noise + c_out * clean


def predict(
    network: VideoNetwork,
    clean: Tensor,
    noise: Tensor,
    sigma: Tensor,
    condition: Conditioning,
) -> Prediction:
    """Have the network look at noised latents.

    clean: (B, F, 4, h, w), scaled by 0.18215. noise: likewise, unit normal. sigma: (B,), one level
    an orbit. condition: of the whole batch (see `stack`), on the latents' device.
    The arithmetic around the network is in float32; its input is in its own number format.
    Weighed with `v_weight`, the squared error of the clean sample is this squared error of v.
    """
    levels = _beside(sigma, clean)
    _, _, c_in, c_noise = v_coefficients(levels)
    noisy = (clean + levels * noise) * c_in
    latents = torch.cat([noisy, condition.concat], dim=2)
    kind = _number_format(network, latents)
    v = network(
        latents.to(kind), c_noise.flatten(), condition.context.to(kind), condition.vector.to(kind)
    )
    return Prediction(v.float(), v_target(clean, noise, sigma))


def stack(conditions: list[Conditioning], device: torch.device) -> Conditioning:
    """The conditions of single orbits as one of the batch.

    context (B, 1, D), vector (B, A), concat (B, F, C, h, w), on `device`.
    """
    return Conditioning(
        torch.cat([each.context for each in conditions]).to(device),
        torch.cat([each.vector for each in conditions]).to(device),
        torch.stack([each.concat for each in conditions]).to(device),
    )


def drop_conditions(
    condition: Conditioning,
    generator: torch.Generator,
    context_share: float = 0.1,
    latents_share: float = 0.1,
) -> Conditioning:
    """Take parts of one orbit's condition away, so that guidance has something to compare with.

    Two draws that don't know of each other: the picture token of the whole orbit, and the
    conditioning latents of each frame by itself. Depth and the vector always stay.
    """
    token = keep_mask(1, context_share, generator)
    frames = keep_mask(len(condition.concat), latents_share, generator)
    concat = condition.concat.clone()
    concat[:, -LATENT_CHANNELS:] *= frames.to(concat)[:, None, None, None]
    return Conditioning(condition.context * token.to(condition.context), condition.vector, concat)


def _beside(sigma: Tensor, latents: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...), with as many axes as the latents."""
    return sigma.to(latents).reshape(-1, *[1] * (latents.ndim - 1))


def _number_format(network: VideoNetwork, otherwise: Tensor) -> torch.dtype:
    if isinstance(network, nn.Module):
        return next(network.parameters()).dtype
    return otherwise.dtype
