"""Relative depth of an orbit's frames: DPT-hybrid, or maps from another estimator.

The refiner knows one polarity: near is large ("inverse depth", as of MiDaS and Depth Anything), of
any scale and offset; each frame is stretched to its own range before it is used. Letters: F frames,
H and W pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from .datatypes import OnStep
from .networks.depth_network import estimate
from .video_model import VideoModel, like_weights, placed
from .video_sampling import to_network

Polarity = Literal["near_is_large", "near_is_small"]


def estimate_depth(
    model: VideoModel,
    frames: Tensor,
    *,
    device: torch.device | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Relative inverse depth of frames by the model's DPT-hybrid (Ranftl et al. 2021).

    frames: (F, H, W, 3) in [0, 1]. Returns (F, H, W) float32 on the CPU, each frame stretched to
    [0, 1], 1 being nearest. Raises ValueError for bad frames or a model without a depth network.
    """
    images = to_network(frames, "frames")
    raw = estimate_raw(model, images, device=device, on_step=on_step)
    full = functional.interpolate(raw[:, None], images.shape[2:], mode="bilinear")[:, 0]
    return stretch(full)


def estimate_raw(
    model: VideoModel,
    images: Tensor,
    *,
    device: torch.device | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """The network's own output at the size it works at, about 3/8 of the frames'.

    images: (F, 3, H, W) in [-1, 1]. Returns (F, H', W') float32 on the CPU, H' and W' multiples of
    32, in no unit.
    """
    if model.depth is None:
        raise ValueError(
            "no depth network is loaded: give dpt_hybrid_384.pt (--depth-checkpoint), or depth "
            "maps of your own"
        )
    maps = []
    with placed(model.depth, device) as network, torch.no_grad():
        for index, image in enumerate(shrink_for_depth(images)):
            maps.append(estimate(network, like_weights(image[None], network)).float().cpu())
            if on_step is not None:
                on_step(index + 1, len(images))
    return torch.cat(maps)


def shrink_for_depth(images: Tensor) -> Tensor:
    """Resize (F, 3, H, W) to what the official code shows the depth network."""
    sides = [max(32, int(side / 2.6666 / 32) * 32) for side in images.shape[2:]]
    return functional.interpolate(images, sides, mode="bilinear")


def to_inverse_depth(maps: Tensor, polarity: Polarity) -> Tensor:
    """Depth maps from elsewhere -> relative inverse depth in [0, 1] a frame, 1 being nearest.

    maps: (F, H, W).
    polarity: "near_is_large" for inverse depth (MiDaS, Depth Anything 3's relative output);
        "near_is_small" for distances (MoGe, metric depth): positive numbers, where 0 and infinity
        stand for unknown, which becomes farthest.

    Raises ValueError for NaN, negative distances, another shape or an unknown polarity.
    """
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"depth maps are {tuple(maps.shape)}, expected (frames, height, width)")
    maps = maps.detach().float().cpu()
    if torch.isnan(maps).any():
        raise ValueError("the depth maps hold NaN: set unknown depth to 0")
    if polarity == "near_is_small":
        if float(maps.min()) < 0:
            raise ValueError(
                f"distances go down to {float(maps.min()):g}, expected none below 0: if near is "
                "large in these maps, say near_is_large"
            )
        known = (maps > 0) & torch.isfinite(maps)
        maps = torch.where(known, 1 / maps.clamp(min=1e-6), torch.zeros_like(maps))
    elif polarity != "near_is_large":
        raise ValueError(
            f"the polarity is {polarity!r}, expected 'near_is_large' or 'near_is_small'"
        )
    if not torch.isfinite(maps).all():
        raise ValueError("the depth maps hold infinite values: set unknown inverse depth to 0")
    return stretch(maps)


def stretch(maps: Tensor) -> Tensor:
    """Each (H, W) map stretched to [0, 1]; a map of one value becomes 0."""
    low = maps.amin(dim=(1, 2), keepdim=True)
    extent = maps.amax(dim=(1, 2), keepdim=True) - low
    return (maps - low) / extent.clamp(min=1e-12)
