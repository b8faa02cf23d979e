"""The networks that a checkpoint can hold, and under which names each kind of file keeps them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..networks import (
    aesthetic,
    depth_network,
    depth_network_keys,
    image_encoder,
    image_encoder_keys,
    vae,
    vae_keys,
    video_unet,
    video_unet_keys,
)
from ..networks.official_keys import Source

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Part:
    """One network: how to build it and to find its tensors.

    settings: its dataclass of settings. build: settings -> network.
    sources: settings -> where each of its tensors lies in an official file.
    from_official, from_ours: settings told from the shapes of a file in the official or in
        diffusers' naming.
    official_prefixes: of the part within an official checkpoint.
    """

    settings: type
    build: Callable[[Any], nn.Module]
    sources: Callable[[Any], dict[str, Source]]
    from_official: Callable[..., Any]
    from_ours: Callable[..., Any]
    official_prefixes: tuple[str, ...]

    def read_settings(self, values: Mapping[str, Any]) -> Any:
        """Settings from what a file's metadata says (JSON has lists for tuples)."""
        known = {field.name for field in dataclasses.fields(self.settings)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown settings of a network: {', '.join(unknown)}")
        return self.settings(
            **{
                key: tuple(value) if isinstance(value, list) else value
                for key, value in values.items()
            }
        )


_VAE = Part(
    vae.VaeConfig,
    vae.build_vae,
    vae_keys.official_sources,
    vae_keys.settings_from_official,
    vae_keys.settings_from_diffusers,
    ("first_stage_model.",),
)

PARTS: dict[str, Part] = {
    "unet": Part(
        video_unet.VideoUNetConfig,
        video_unet.build_video_unet,
        video_unet_keys.official_sources,
        video_unet_keys.settings_from_official,
        video_unet_keys.settings_from_diffusers,
        ("model.diffusion_model.",),
    ),
    "vae": _VAE,
    "conditioning_vae": dataclasses.replace(
        _VAE, official_prefixes=("conditioner.embedders.3.encoder.",)
    ),
    "image_encoder": Part(
        image_encoder.ImageEncoderConfig,
        image_encoder.build_image_encoder,
        image_encoder_keys.official_sources,
        image_encoder_keys.settings_from_official,
        image_encoder_keys.settings_from_diffusers,
        ("conditioner.embedders.0.open_clip.model.visual.", "visual."),
    ),
    "aesthetic": Part(
        aesthetic.AestheticConfig,
        aesthetic.build_aesthetic,
        aesthetic.official_sources,
        aesthetic.settings_from_official,
        aesthetic.settings_from_ours,
        ("conditioner.embedders.1.",),
    ),
    "depth": Part(
        depth_network.DepthConfig,
        depth_network.build_depth_network,
        depth_network_keys.official_sources,
        depth_network_keys.settings_from_official,
        depth_network_keys.settings_from_diffusers,
        ("conditioner.embedders.2.model.model.", ""),
    ),
}

ROLES = {
    "orbit": ("unet", "vae", "conditioning_vae", "image_encoder", "aesthetic"),
    "refiner": ("unet", "vae", "conditioning_vae", "image_encoder", "depth"),
}
"""Which networks each stage is made of."""
