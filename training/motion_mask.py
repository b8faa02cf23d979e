"""How much each place of each frame counts: learnt beside the video UNet, for real video.

Where frames show things that no orbit explains (people passing, moving shadows), their error should
not drive the network. A small network looks at the clean latents and gives a weight in [0, 1] for
every place; the loss is the weighted error plus lambda times how far the weights are from 1, since
weights that are all zero would otherwise be best. Where the error is e, the best weight is
1 - e / (2 lambda), cut to [0, 1]: so lambda is half the error from which on a place is ignored.

Letters: B orbits, F frames, h and w the latent grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LATENT_CHANNELS = 4


class MotionMask(nn.Module):
    """Weights from latents, each frame seen with the mean of all frames."""

    def __init__(self, width: int = 32, weight_at_first: float = 0.95) -> None:
        """width: channels in between. weight_at_first: what every place begins with."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * _LATENT_CHANNELS, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, float(torch.logit(torch.tensor(weight_at_first))))

    def forward(self, clean: Tensor) -> Tensor:
        """Clean latents (B, F, 4, h, w) -> weights (B, F, 1, h, w) in [0, 1]."""
        mean = clean.mean(dim=1, keepdim=True).expand_as(clean)
        seen = torch.cat([clean - mean, mean], dim=2)
        kind = next(self.parameters()).dtype
        logits = self.layers(seen.flatten(0, 1).to(kind)).float()
        return torch.sigmoid(logits).unflatten(0, clean.shape[:2])


def masked_loss(squared_error: Tensor, weights: Tensor, anchor: float) -> tuple[Tensor, Tensor]:
    """The weighted error and what holds the weights at 1, both scalars, to be added.

    squared_error: (B, F, 4, h, w). weights: (B, F, 1, h, w) in [0, 1]. anchor: lambda.
    Raises ValueError if it is not above 0: then ignoring everything would be best.
    """
    if not anchor > 0:
        raise ValueError(f"lambda of the motion mask is {anchor}, expected above 0")
    return (weights * squared_error).mean(), anchor * ((1 - weights) ** 2).mean()
