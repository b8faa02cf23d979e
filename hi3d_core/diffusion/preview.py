"""A rough picture of latents at the cost of one small matrix, for previews while sampling.

An autoencoder's latents are nearly an affine code of the colours in their 8 x 8 cells. The map is
fitted to a picture that is encoded anyway, so it suits any autoencoder and no numbers are stored.
Letters: N pictures, H x W their size, h x w the latent grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_RIDGE = 1e-3  # of the latents' mean square


@dataclass(frozen=True, eq=False)
class LatentPreview:
    """An affine map from latents to colours: matrix (4, 3) and offset (3,), float32 on the CPU.

    Fitting to a picture of 1024 x 1024 and a call for 16 frames of 128 x 128 take about 20 ms each
    on one CPU core: nothing beside a step of the network.
    """

    matrix: Tensor
    offset: Tensor

    @classmethod
    def fit(cls, images: Tensor, latents: Tensor) -> LatentPreview:
        """Fit the map by least squares.

        images: (N, 3, H, W) in [-1, 1]. latents: (N, 4, h, w), what the autoencoder makes of them,
        unscaled; H and W are multiples of h and w.

        What a picture can't teach is taken as constant: a flat white one gives white. Raises
        ValueError for shapes that don't fit and latents that are not finite.
        """
        _check(images, latents)
        size = (latents.shape[2], latents.shape[3])
        small = torch.nn.functional.adaptive_avg_pool2d(images.detach().cpu().float(), size)
        colors = (small.double() * 0.5 + 0.5).movedim(1, -1).flatten(0, 2)
        codes = latents.detach().cpu().double().movedim(1, -1).flatten(0, 2)
        mean_code, mean_color = codes.mean(0), colors.mean(0)
        spread = codes - mean_code
        # The ridge is measured against the codes themselves, not their spread: on a flat picture
        # the spread is rounding, which must not be amplified into colours.
        ridge = _RIDGE * len(codes) * (codes**2).mean() * torch.eye(codes.shape[1])
        inverse = torch.linalg.pinv(spread.T @ spread + ridge, hermitian=True)
        matrix = inverse @ spread.T @ (colors - mean_color)
        return cls(matrix.float(), (mean_color - mean_code @ matrix).float())

    def __call__(self, latents: Tensor) -> Tensor:
        """Unscaled latents (N, 4, h, w) -> colours (N, h, w, 3) float32 in [0, 1]."""
        codes = latents.detach().float().movedim(1, -1)
        return (codes @ self.matrix.to(codes) + self.offset.to(codes)).clamp(0, 1)


def _check(images: Tensor, latents: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or latents.ndim != 4 or latents.shape[1] != 4:
        raise ValueError(
            f"images is {tuple(images.shape)} and latents {tuple(latents.shape)}, expected "
            "(N, 3, H, W) and (N, 4, h, w)"
        )
    counts = len(images) == len(latents) > 0
    if not counts or images.shape[2] % latents.shape[2] or images.shape[3] % latents.shape[3]:
        raise ValueError(
            f"images is {tuple(images.shape)} and latents {tuple(latents.shape)}, expected as many "
            "latents as pictures, each on a grid that divides the picture"
        )
    if not torch.isfinite(latents).all():
        raise ValueError("the picture's latents are not finite: run the autoencoder in float32")
