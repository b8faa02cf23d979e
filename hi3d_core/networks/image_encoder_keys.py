"""Where the image encoder's tensors lie in OpenCLIP's and OpenAI's naming; settings from shapes.

Names are those after "visual.". Ours are transformers', the same in its releases 4 and 5, so SVD's
folder `image_encoder` needs no map.
"""

from __future__ import annotations

from collections.abc import Iterator

from .image_encoder import Activation, ImageEncoderConfig
from .official_keys import Source
from .tensor_shapes import Shapes, count_indices, shape_of

TEXT_HALF = (
    "transformer.",
    "token_embedding.",
    "ln_final.",
    "positional_embedding",
    "text_projection",
    "logit_scale",
)
"""What else such a file holds, beside "visual.": beginnings of the text encoder's names."""

_NETWORK = "image encoder"
_HEAD_WIDTH = 64
_HEADS_BY_WIDTH = {1280: 16}  # ViT-H is the exception
_LAYER = {  # ours -> official, weight and bias each
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")  # one tensor in the file


def official_sources(settings: ImageEncoderConfig) -> dict[str, Source]:
    """Our name -> where it lies, for every tensor of a network with these settings."""
    return dict(_tensors(settings))


def settings_from_official(
    shapes: Shapes, heads: int | None = None, activation: Activation = "gelu"
) -> ImageEncoderConfig:
    """The settings of the encoder with these tensors, names after "visual." -> shapes.

    heads: can't be seen in any shape; None takes what the released networks of this width have.
    activation: nor can this; "gelu" is OpenCLIP's.
    Raises ValueError if tensors lack that tell the settings.
    """
    return _settings(
        shape_of(shapes, "conv1.weight", _NETWORK),
        shape_of(shapes, "positional_embedding", _NETWORK),
        count_indices(shapes, r"transformer\.resblocks\.(\d+)\."),
        shape_of(shapes, "proj", _NETWORK)[1],
        heads,
        activation,
    )


def settings_from_diffusers(
    shapes: Shapes, heads: int | None = None, activation: Activation = "gelu"
) -> ImageEncoderConfig:
    """As `settings_from_official`, from tensors in transformers' naming, which is ours."""
    embeddings = "vision_model.embeddings."
    return _settings(
        shape_of(shapes, f"{embeddings}patch_embedding.weight", _NETWORK),
        shape_of(shapes, f"{embeddings}position_embedding.weight", _NETWORK),
        count_indices(shapes, r"vision_model\.encoder\.layers\.(\d+)\."),
        shape_of(shapes, "visual_projection.weight", _NETWORK)[0],
        heads,
        activation,
    )


def is_known_extra(name: str) -> bool:
    """Whether a tensor beside "visual." belongs to the text encoder, which is not needed."""
    return name.startswith(TEXT_HALF)


def _settings(
    kernel: tuple[int, ...],
    positions: tuple[int, ...],
    layers: int,
    embedding: int,
    heads: int | None,
    activation: Activation,
) -> ImageEncoderConfig:
    width, _, patch, _ = kernel
    side = round((positions[0] - 1) ** 0.5)  # one position is the class token's
    return ImageEncoderConfig(
        width=width,
        layers=layers,
        heads=heads or _HEADS_BY_WIDTH.get(width, max(1, width // _HEAD_WIDTH)),
        patch=patch,
        image_size=patch * side,
        embedding=embedding,
        activation=activation,
    )


def _tensors(settings: ImageEncoderConfig) -> Iterator[tuple[str, Source]]:
    embeddings = "vision_model.embeddings."
    yield f"{embeddings}class_embedding", Source("class_embedding")
    yield f"{embeddings}patch_embedding.weight", Source("conv1.weight")
    yield f"{embeddings}position_embedding.weight", Source("positional_embedding")
    yield "visual_projection.weight", Source("proj", transposed=True)
    for kind in ("weight", "bias"):
        yield f"vision_model.pre_layrnorm.{kind}", Source(f"ln_pre.{kind}")
        yield f"vision_model.post_layernorm.{kind}", Source(f"ln_post.{kind}")
    for layer in range(settings.layers):
        ours, official = f"vision_model.encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            for name, other in _LAYER.items():
                yield f"{ours}{name}.{kind}", Source(f"{official}{other}.{kind}")
            for index, name in enumerate(_PROJECTIONS):
                yield (
                    f"{ours}self_attn.{name}.{kind}",
                    Source(f"{official}attn.in_proj_{kind}", part=(index, len(_PROJECTIONS))),
                )
