"""The networks of one diffusion stage, and where they are while they work.

A stage needs its networks one after the other: the image encoder, the autoencoder, the video UNet,
the autoencoder again. `placed` brings one to the device and takes it away again, so that a card
holds one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from .model_defaults import OFFICIAL, ModelDefaults, Stage

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import CLIPVisionModelWithProjection

    from .networks.aesthetic import AestheticNetwork
    from .networks.depth_network import DepthNetwork
    from .networks.video_unet import VideoUNet

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class VideoModel:
    """One stage's networks, in evaluation mode.

    stage: "orbit" (stage 1) or "refiner" (stage 2).
    unet: the denoiser of 16-frame latents. vae: the autoencoder of single frames.
    conditioning_vae: the one that encodes the conditioning picture; nearly always `vae` itself.
    image_encoder: CLIP ViT-H, whose one token the UNet attends to.
    aesthetic: scores the input picture (orbit), or None: then the score is a number given.
    depth: DPT-hybrid (refiner), or None: then depth maps must be given.
    own_defaults: what its file says of its frames and of sampling; None: the authors' weights.
    """

    stage: Stage
    unet: VideoUNet
    vae: AutoencoderKL
    conditioning_vae: AutoencoderKL
    image_encoder: CLIPVisionModelWithProjection
    aesthetic: AestheticNetwork | None = None
    depth: DepthNetwork | None = None
    own_defaults: ModelDefaults | None = None

    @property
    def defaults(self) -> ModelDefaults:
        """The side of its frames, and how to sample from it."""
        return self.own_defaults or OFFICIAL[self.stage]

    @property
    def frames(self) -> int:
        """How many frames an orbit has."""
        return self.unet.settings.frames

    @property
    def pixels_per_latent(self) -> int:
        """The side in pixels of what one latent stands for (8 for the released weights)."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def check_stage(self, stage: Stage, function: str) -> None:
        """Raise ValueError if this is the other stage's model."""
        if self.stage != stage:
            raise ValueError(
                f"{function} got the {self.stage} model, expected the {stage} model: "
                f"load {'first_stage.pt' if stage == 'orbit' else 'second_stage.pt'}"
            )


@contextmanager
def placed(network: Network, device: torch.device | None) -> Iterator[Network]:
    """Have the network's weights on `device` inside the block, and where they were after it.

    None leaves them where they are. The copies on the device are dropped, not copied back, whatever
    happens inside; so weights mapped from a file stay mapped.
    """
    slots: list[tuple[dict[str, Any], str, Tensor]] = [
        (table, name, tensor)
        for module in network.modules()
        for table in (module._parameters, module._buffers)
        for name, tensor in table.items()
        if tensor is not None and device is not None and tensor.device != device
    ]
    try:
        for table, name, tensor in slots:
            moved = tensor.detach().to(device, non_blocking=True)
            is_parameter = isinstance(tensor, nn.Parameter)
            # A new entry instead of `tensor.data = ...`, which not every pair of devices allows.
            table[name] = nn.Parameter(moved, tensor.requires_grad) if is_parameter else moved
        yield network
    finally:
        for table, name, tensor in slots:
            table[name] = tensor


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are now."""
    return next(network.parameters()).device


def dtype_of(network: nn.Module) -> torch.dtype:
    """What a network computes in."""
    return next(network.parameters()).dtype


def like_weights(tensor: Tensor, network: nn.Module) -> Tensor:
    """The tensor on the network's device, in its number format, contiguous."""
    return tensor.to(device_of(network), dtype_of(network)).contiguous()


def preferred_device() -> torch.device:
    """CUDA if there is any, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def preferred_dtype(device: torch.device) -> torch.dtype:
    """What the networks compute in where the user does not say.

    On CUDA float16, in which the weights were trained; bfloat16 has the range of float32 but three
    bits less precision than float16. Elsewhere float32: CPUs and Apple's GPU are not faster in half
    precision, or not exact.
    """
    return torch.float16 if device.type == "cuda" else torch.float32
