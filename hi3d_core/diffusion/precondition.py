"""How a network that predicts v becomes a denoiser, and what a denoiser is.

Letters: x a noisy sample, sigma its noise level, D the clean sample that the denoiser sees in it, F
the network: D(x, sigma) = c_skip x + c_out F(c_in x, c_noise).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(noisy sample, its noise level as a scalar) -> clean sample, of the same shape."""


def v_coefficients(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in, c_noise) of v-prediction with EDM's noise levels, each like `sigma`.

    EDM (Karras et al. 2022, eq. 7) with the coefficients that Stable Video Diffusion (Blattmann et
    al. 2023, appendix D) was trained with. sigma: positive, any shape.
    """
    variance = sigma**2 + 1
    return 1 / variance, -sigma / variance**0.5, 1 / variance**0.5, 0.25 * sigma.log()
