"""How good a picture is said to look: stage 1's vector begins with this score.

OpenAI's CLIP ViT-L/14 and a linear head over it, as LAION trained it; most scores lie between 4 and
7. Letters: N pictures, H and W their pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionModelWithProjection

from . import image_encoder_keys
from .image_encoder import (
    CLIP_VIT_L,
    ImageEncoderConfig,
    build_image_encoder,
    embed_prepared,
    normalise,
    picture_size,
)
from .official_keys import Source
from .tensor_shapes import Shapes, count_indices, shape_of

_NETWORK = "aesthetic head"
_ENCODER, _HEAD = "aesthetic_model.visual.", "aesthetic_mlp.layers."


@dataclass(frozen=True)
class AestheticConfig(ImageEncoderConfig):
    """What tells one scoring network from another.

    The encoder's settings, and head: the widths after each of the head's layers, the last one 1.
    """

    head: tuple[int, ...] = (1024, 128, 64, 16, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "head", tuple(self.head))  # JSON has lists
        if len(self.head) < 2 or self.head[-1] != 1:
            raise ValueError(
                f"head is {self.head}, expected two widths or more, the last of them 1"
            )


AESTHETIC = AestheticConfig(**vars(CLIP_VIT_L))
"""The released weights'."""


class AestheticNetwork(nn.Module):
    """encoder: CLIP. head: linear layers, nothing between them (dropout, in training)."""

    encoder: CLIPVisionModelWithProjection
    head: nn.Sequential

    def __init__(self, settings: AestheticConfig) -> None:
        super().__init__()
        self.encoder = build_image_encoder(settings)
        widths = (settings.embedding, *settings.head)
        self.head = nn.Sequential(*(nn.Linear(*pair) for pair in pairwise(widths)))

    def forward(self, prepared: Tensor) -> Tensor:
        """Score pictures from `prepare_image`, (N, 3, S, S) -> (N, 1)."""
        return self.head(functional.normalize(embed_prepared(self.encoder, prepared), dim=-1))


def build_aesthetic(settings: AestheticConfig = AESTHETIC) -> AestheticNetwork:
    """The network without trained weights; on torch's current default device."""
    return AestheticNetwork(settings)


def score(network: AestheticNetwork, images: Tensor) -> Tensor:
    """Score pictures, (N, 3, H, W) in [-1, 1] on the weights' device -> (N, 1).

    Raises ValueError for other shapes.
    """
    return network(prepare_image(images, picture_size(network.encoder)))


def prepare_image(images: Tensor, size: int = 224) -> Tensor:
    """Resize, crop and normalise as the official code does.

    images: (N, 3, H, W) in [-1, 1]. Every picture is stretched to the aspect ratio of a film frame
    (384 x 224), without a blur, and the middle square is taken. Returns (N, 3, size, size) float32.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images is {tuple(images.shape)}, expected (N, 3, height, width)")
    wide = size * 384 // 224
    left = (wide - size) // 2
    stretched = functional.interpolate(
        images.float(), (size, wide), mode="bilinear", align_corners=False
    )
    return normalise(stretched[..., left : left + size])


def official_sources(settings: AestheticConfig) -> dict[str, Source]:
    """Our name -> where it lies in an official file, after "conditioner.embedders.1."."""
    sources = {
        f"encoder.{ours}": Source(
            _ENCODER + source.name, source.part, source.transposed, source.kernel
        )
        for ours, source in image_encoder_keys.official_sources(settings).items()
    }
    for index, place in enumerate(_head_places(len(settings.head))):
        for kind in ("weight", "bias"):
            sources[f"head.{index}.{kind}"] = Source(f"{_HEAD}{place}.{kind}")
    return sources


def settings_from_official(shapes: Shapes, heads: int | None = None) -> AestheticConfig:
    """The settings of the network with these tensors, official names without prefix -> shapes.

    heads: as in `image_encoder_keys`. Raises ValueError if tensors lack that tell the settings.
    """
    encoder = image_encoder_keys.settings_from_official(
        _after(shapes, _ENCODER), heads, activation="quick_gelu"
    )
    layers = count_indices(shapes, _HEAD.replace(".", r"\.") + r"(\d+)\.weight")
    names = [f"{_HEAD}{place}.weight" for place in _head_places(max(layers, 2))]
    return _with_head(encoder, shapes, names)


def settings_from_ours(shapes: Shapes, heads: int | None = None) -> AestheticConfig:
    """As `settings_from_official`, from tensors in our naming."""
    encoder = image_encoder_keys.settings_from_diffusers(
        _after(shapes, "encoder."), heads, activation="quick_gelu"
    )
    layers = count_indices(shapes, r"head\.(\d+)\.weight")
    return _with_head(encoder, shapes, [f"head.{index}.weight" for index in range(max(layers, 2))])


def _with_head(encoder: ImageEncoderConfig, shapes: Shapes, names: list[str]) -> AestheticConfig:
    head = tuple(shape_of(shapes, name, _NETWORK)[0] for name in names)
    return AestheticConfig(**vars(encoder), head=head)


def _after(shapes: Shapes, prefix: str) -> Shapes:
    return {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


def _head_places(layers: int) -> list[int]:
    """Numbers of the head's linear layers in the file: a dropout follows each but the last two."""
    return [*range(0, 2 * layers - 2, 2), 2 * layers - 3]
