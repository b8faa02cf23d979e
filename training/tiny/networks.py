"""The small model's networks: the library's classes at small width."""

from __future__ import annotations

import torch
from torch import nn

from hi3d_core.networks.depth_network import DepthConfig
from hi3d_core.networks.image_encoder import ImageEncoderConfig
from hi3d_core.networks.vae import VaeConfig
from hi3d_core.networks.video_unet import VideoUNetConfig
from hi3d_core.weights.parts import PARTS

_TOKEN = 64  # width of the picture's token
_HEAD = 32
_GROUPS = 8

NETWORKS = {
    "vae": VaeConfig(channels=(32, 32, 32, 64), layers_per_block=1, norm_groups=_GROUPS),
    "image_encoder": ImageEncoderConfig(
        width=64, layers=2, heads=2, patch=8, image_size=64, embedding=_TOKEN, activation="gelu"
    ),
    "orbit": VideoUNetConfig(
        block_channels=(32, 96, 128),
        head_channels=_HEAD,
        context_channels=_TOKEN,
        layers_per_block=1,
        norm_groups=_GROUPS,
    ),
    "refiner": VideoUNetConfig(
        in_channels=17,
        vector_channels=512,
        block_channels=(32, 32, 96, 128),  # one level around stage 1's
        head_channels=_HEAD,
        context_channels=_TOKEN,
        layers_per_block=1,
        norm_groups=_GROUPS,
        outer_attention=False,
    ),
    "depth": DepthConfig(
        width=64,
        layers=4,
        heads=2,
        grid=6,
        stem_channels=32,
        stage_channels=(128, 128, 128),
        stage_layers=(1, 1, 1),
        token_channels=(32, 48),
        fusion_channels=32,
    ),
}
"""By what each is; the two UNets by their stage."""


def build(name: str, seed: int) -> nn.Module:
    """A network of `NETWORKS` with random weights that the seed decides."""
    part = PARTS["unet" if name in ("orbit", "refiner") else name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return part.build(NETWORKS[name])
