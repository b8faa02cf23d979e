"""CLIP's image encoder: a picture as one vector, the token that the video UNet attends to.

Both stages use OpenCLIP's ViT-H/14; the aesthetic score uses OpenAI's ViT-L/14. Letters: N
pictures, H and W their pixels, D the embedding's width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

# Of the pictures that CLIP was trained on, red, green, blue, in [0, 1].
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)

Activation = Literal["gelu", "quick_gelu"]


@dataclass(frozen=True)
class ImageEncoderConfig:
    """What tells one image encoder from another.

    width, layers, heads: of the transformer. patch: its side in pixels. image_size: the picture's.
    embedding: D. activation: "gelu" is the exact one, "quick_gelu" x sigmoid(1.702 x) as OpenAI's
    networks have it.

    Raises ValueError if heads don't divide the width or patches the picture, or for another
    activation.
    """

    width: int
    layers: int
    heads: int
    patch: int
    image_size: int
    embedding: int
    activation: Activation

    def __post_init__(self) -> None:
        if self.width % self.heads or self.image_size % self.patch:
            raise ValueError(
                f"width is {self.width} with {self.heads} heads, image_size {self.image_size} with "
                f"patches of {self.patch}: expected multiples"
            )
        if self.activation not in ("gelu", "quick_gelu"):
            raise ValueError(f"activation is {self.activation!r}, expected 'gelu' or 'quick_gelu'")


CLIP_VIT_H = ImageEncoderConfig(1280, 32, 16, 14, 224, 1024, "gelu")
CLIP_VIT_L = ImageEncoderConfig(1024, 24, 16, 14, 224, 768, "quick_gelu")


def build_image_encoder(settings: ImageEncoderConfig) -> CLIPVisionModelWithProjection:
    """The network without trained weights; on torch's current default device."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=settings.width,
            intermediate_size=4 * settings.width,
            projection_dim=settings.embedding,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            image_size=settings.image_size,
            patch_size=settings.patch,
            hidden_act=settings.activation,
            layer_norm_eps=1e-5,
        )
    )


def embed_image(encoder: CLIPVisionModelWithProjection, images: Tensor) -> Tensor:
    """Embed pictures, (N, 3, H, W) in [-1, 1] on the weights' device -> (N, D), not normalised.

    Raises ValueError for other shapes.
    """
    return embed_prepared(encoder, preprocess_image(images, picture_size(encoder)))


def embed_prepared(encoder: CLIPVisionModelWithProjection, prepared: Tensor) -> Tensor:
    """Embed pictures that are resized and normalised already, (N, 3, S, S) -> (N, D)."""
    weights = encoder.visual_projection.weight
    return encoder(prepared.to(weights.device, weights.dtype)).image_embeds


def preprocess_image(images: Tensor, size: int = 224) -> Tensor:
    """Resize to the encoder's size and normalise, as the official code does (with kornia 0.6.9).

    images: (N, 3, H, W) in [-1, 1]. Returns (N, 3, size, size) float32.
    """
    return normalise(resize_image(images, size))


def resize_image(images: Tensor, size: int) -> Tensor:
    """The first half of `preprocess_image`: its range stays, but for what bicubic overshoots.

    What is larger is blurred first; then bicubic, corner pixels onto corner pixels, the aspect
    ratio not kept.
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 2:
        raise ValueError(
            f"images is {tuple(images.shape)}, expected (N, 3, height, width) of 2 pixels or more"
        )
    return functional.interpolate(
        _blur_for(images.float(), size), (size, size), mode="bicubic", align_corners=True
    )


def picture_size(encoder: CLIPVisionModelWithProjection) -> int:
    """The side in pixels of the pictures that the encoder takes."""
    return cast(int, encoder.config.image_size)


def normalise(images: Tensor) -> Tensor:
    """[-1, 1] -> what CLIP was trained on; (N, 3, H, W)."""
    mean, deviation = (
        torch.tensor(each, dtype=images.dtype, device=images.device)[:, None, None]
        for each in (_MEAN, _DEVIATION)
    )
    return ((images + 1) / 2 - mean) / deviation


def _blur_for(images: Tensor, size: int) -> Tensor:
    """Blur what is to become smaller.

    For a factor f the Gaussian's sigma is (f - 1) / 2 pixels, cut off at about 2 sigma. It is the
    rule of kornia 0.6.9's resize, kept here so that later releases can't change it.
    """
    factors = [side / size for side in images.shape[2:]]
    if max(factors) <= 1:
        return images
    sigmas = [max((factor - 1) / 2, 0.001) for factor in factors]
    kernel = [int(max(4 * sigma, 3)) // 2 * 2 + 1 for sigma in sigmas]  # odd
    return gaussian_blur2d(images, (kernel[0], kernel[1]), (sigmas[0], sigmas[1]))
