"""Both stages' networks at a tiny width with random weights: the real classes, in milliseconds."""

import torch
from torch import nn

from hi3d_core.networks.depth_network import DepthConfig
from hi3d_core.networks.image_encoder import ImageEncoderConfig, build_image_encoder
from hi3d_core.networks.vae import VaeConfig, build_vae
from hi3d_core.networks.video_unet import VideoUNetConfig, build_video_unet
from hi3d_core.video_model import VideoModel

UNET = {
    "block_channels": (32, 32, 64, 64),
    "head_channels": 8,
    "context_channels": 16,
    "layers_per_block": 1,
}
VAE = VaeConfig(channels=(32, 32, 32, 32), layers_per_block=1)
ENCODER = ImageEncoderConfig(
    width=32, layers=2, heads=2, patch=32, image_size=224, embedding=16, activation="gelu"
)
TINY_DEPTH = DepthConfig(
    width=32,
    layers=4,
    heads=2,
    grid=4,
    stem_channels=32,
    stage_channels=(128, 128, 128),
    stage_layers=(1, 2, 1),
    token_channels=(24, 40),
    fusion_channels=16,
)
CHANNELS = {"orbit": (8, 768), "refiner": (17, 512)}


def tiny_model(stage: str, seed: int = 0) -> VideoModel:
    """A model whose every weight counts: no layer is zero, as some are when newly built."""
    generator = torch.Generator().manual_seed(seed)
    in_channels, vector_channels = CHANNELS[stage]
    settings = VideoUNetConfig(in_channels=in_channels, vector_channels=vector_channels, **UNET)
    vae = filled(build_vae(VAE), generator)
    return VideoModel(
        stage,
        filled(build_video_unet(settings), generator),
        vae,
        vae,
        filled(build_image_encoder(ENCODER), generator),
    )


def filled(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """The network with small random weights, in evaluation mode."""
    for parameter in network.parameters():
        fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 100
        with torch.no_grad():
            parameter.normal_(0, fan_in**-0.5, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(0.5)
    return network.eval().requires_grad_(False)
