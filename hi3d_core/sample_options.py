"""How the networks are run: what trades memory, time and (one of them) exactness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .memory import available_bytes

if TYPE_CHECKING:
    from .networks.video_unet import VideoUNet

# Of the UNet at its peak, in multiples of its outermost level's hidden states, as counted by
# benchmarks/bench_sampling.py: with the feed-forward layers at once, and in four parts or more.
_ACTIVATIONS, _ACTIVATIONS_IN_PARTS = 28, 17


@dataclass(frozen=True)
class SampleOptions:
    """Switches that both diffusion stages share. The defaults change no result.

    guide_at_once: compute with and without the condition in one call of the network; None decides
        by free memory.
    frames_at_once: frames that the autoencoder takes in one call; more is faster on a GPU.
    tiled: let the autoencoder work in overlapping tiles of 512 pixels: the memory of one tile. It
        changes the result, since its norms and its attention see a tile instead of the frame.
    feed_forward_chunks: compute the feed-forward layers in this many parts; 1 is all at once. Four
        take a third off the peak for 1 to 2% of the time (estimated).
    reuse_every: compute the UNet's deep features in every n-th call only and keep them in between
        (DeepCache, Ma et al. 2023); 1 computes all. It changes the result. A step is one call, with
        Heun's method two.
    compiled: use torch.compile for the UNet; the first step then takes minutes.
    """

    guide_at_once: bool | None = None
    frames_at_once: int = 1
    tiled: bool = False
    feed_forward_chunks: int = 4
    reuse_every: int = 1
    compiled: bool = False

    def __post_init__(self) -> None:
        for name in ("frames_at_once", "feed_forward_chunks", "reuse_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")


def free_bytes(device: torch.device) -> int:
    """Memory that the device could still give."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    return available_bytes()


def guides_at_once(
    options: SampleOptions, unet: VideoUNet, latents: torch.Size, device: torch.device
) -> bool:
    """Whether both branches of guidance go through the network together.

    latents: (F, 4, h, w). If the options leave it open, they do where their activations fit into
    half of what is free.
    """
    if options.guide_at_once is not None:
        return options.guide_at_once
    parameter = next(unet.parameters())
    frames, _, height, width = latents
    in_parts = options.feed_forward_chunks >= 4
    activations = _ACTIVATIONS_IN_PARTS if in_parts else _ACTIVATIONS
    widest = activations * unet.settings.block_channels[0]
    needed = 2 * frames * height * width * widest * parameter.dtype.itemsize
    return needed < free_bytes(device) / 2
