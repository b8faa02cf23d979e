"""Where the depth network's tensors lie in `dpt_hybrid_384.pt`, and settings told from shapes.

Ours are transformers' names, the same in its releases 4 and 5, so its folder `dpt-hybrid-midas`
needs no map. Both files hold two layers that nothing uses (the last norm of the tokens and a
residual unit of the coarsest level); the network has them too, so they are accounted for.
"""

from __future__ import annotations

from collections.abc import Iterator

from .depth_network import DepthConfig
from .official_keys import Source
from .tensor_shapes import Shapes, count_indices, shape_of

CLASSIFIER = ("pretrained.model.head.",)
"""What else the file holds: beginnings of names of the ViT's classifier, which is not needed."""

_NETWORK = "depth network"
_HEAD_WIDTH = 64
_OURS, _OFFICIAL = "dpt.embeddings.backbone.bit.", "pretrained.model.patch_embed.backbone."
_LAYER = {  # of the transformer; weight and bias each
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_PROJECTIONS = ("query", "key", "value")  # one tensor in the file
_FUSED_LEVELS = 4


def official_sources(settings: DepthConfig) -> dict[str, Source]:
    """Our name -> where it lies, for every tensor of a network with these settings."""
    return dict(_tensors(settings))


def settings_from_official(shapes: Shapes, heads: int | None = None) -> DepthConfig:
    """The settings of the network with these tensors, names as in `dpt_hybrid_384.pt` -> shapes.

    heads: can't be seen in any shape; None takes heads of 64 channels.
    Raises ValueError if tensors lack that tell the settings.
    """
    return _settings(
        shapes,
        heads,
        positions="pretrained.model.pos_embed",
        layers=r"pretrained\.model\.blocks\.(\d+)\.",
        stem=f"{_OFFICIAL}stem.conv.weight",
        stage=_OFFICIAL + "stages.{}.blocks.",
        levels=("pretrained.act_postprocess3.3.weight", "pretrained.act_postprocess4.3.weight"),
        fusion="scratch.layer1_rn.weight",
    )


def settings_from_diffusers(shapes: Shapes, heads: int | None = None) -> DepthConfig:
    """As `settings_from_official`, from tensors in transformers' naming, which is ours."""
    level = "neck.reassemble_stage.layers.{}.projection.weight"
    return _settings(
        shapes,
        heads,
        positions="dpt.embeddings.position_embeddings",
        layers=r"dpt\.encoder\.layer\.(\d+)\.",
        stem=f"{_OURS}embedder.convolution.weight",
        stage=_OURS + "encoder.stages.{}.layers.",
        levels=(level.format(2), level.format(3)),
        fusion="neck.convs.0.weight",
    )


def is_known_extra(name: str) -> bool:
    """Whether a tensor of `dpt_hybrid_384.pt` is one that is not needed."""
    return name.startswith(CLASSIFIER)


def _settings(
    shapes: Shapes,
    heads: int | None,
    *,
    positions: str,
    layers: str,
    stem: str,
    stage: str,
    levels: tuple[str, str],
    fusion: str,
) -> DepthConfig:
    _, tokens, width = shape_of(shapes, positions, _NETWORK)
    stages = [stage.format(index) for index in range(3)]
    return DepthConfig(
        width=width,
        layers=count_indices(shapes, layers),
        heads=heads or max(1, width // _HEAD_WIDTH),
        grid=round((tokens - 1) ** 0.5),  # one position is the class token's
        stem_channels=shape_of(shapes, stem, _NETWORK)[0],
        stage_channels=tuple(
            shape_of(shapes, f"{name}0.conv3.weight", _NETWORK)[0] for name in stages
        ),
        stage_layers=tuple(
            count_indices(shapes, name.replace(".", r"\.") + r"(\d+)\.") for name in stages
        ),
        token_channels=tuple(shape_of(shapes, name, _NETWORK)[0] for name in levels),
        fusion_channels=shape_of(shapes, fusion, _NETWORK)[0],
    )


def _tensors(settings: DepthConfig) -> Iterator[tuple[str, Source]]:
    for ours, official in (*_residual_network(settings), *_transformer(settings), *_neck()):
        yield ours, Source(official)
    for layer in range(settings.layers):
        for kind in ("weight", "bias"):
            for index, name in enumerate(_PROJECTIONS):
                yield (
                    f"dpt.encoder.layer.{layer}.attention.attention.{name}.{kind}",
                    Source(f"pretrained.model.blocks.{layer}.attn.qkv.{kind}", part=(index, 3)),
                )


def _residual_network(settings: DepthConfig) -> Iterator[tuple[str, str]]:
    yield f"{_OURS}embedder.convolution.weight", f"{_OFFICIAL}stem.conv.weight"
    yield from _weight_and_bias(f"{_OURS}embedder.norm", f"{_OFFICIAL}stem.norm")
    for stage, layers in enumerate(settings.stage_layers):
        for layer in range(layers):
            ours = f"{_OURS}encoder.stages.{stage}.layers.{layer}."
            official = f"{_OFFICIAL}stages.{stage}.blocks.{layer}."
            pairs = [(f"conv{index}", f"norm{index}") for index in (1, 2, 3)]
            if layer == 0:
                pairs.append(("downsample.conv", "downsample.norm"))
            for convolution, norm in pairs:
                yield f"{ours}{convolution}.weight", f"{official}{convolution}.weight"
                yield from _weight_and_bias(ours + norm, official + norm)


def _transformer(settings: DepthConfig) -> Iterator[tuple[str, str]]:
    yield "dpt.embeddings.cls_token", "pretrained.model.cls_token"
    yield "dpt.embeddings.position_embeddings", "pretrained.model.pos_embed"
    yield from _weight_and_bias("dpt.embeddings.projection", "pretrained.model.patch_embed.proj")
    yield from _weight_and_bias("dpt.layernorm", "pretrained.model.norm")
    for layer in range(settings.layers):
        for name, other in _LAYER.items():
            yield from _weight_and_bias(
                f"dpt.encoder.layer.{layer}.{name}", f"pretrained.model.blocks.{layer}.{other}"
            )


def _neck() -> Iterator[tuple[str, str]]:
    """What fuses the levels; the official names count them from 1, finest first."""
    for level in (2, 3):
        ours, official = "neck.reassemble_stage.", f"pretrained.act_postprocess{level + 1}."
        yield from _weight_and_bias(f"{ours}readout_projects.{level}.0", f"{official}0.project.0")
        yield from _weight_and_bias(f"{ours}layers.{level}.projection", f"{official}3")
    yield from _weight_and_bias(
        "neck.reassemble_stage.layers.3.resize", "pretrained.act_postprocess4.4"
    )
    for level in range(_FUSED_LEVELS):
        yield f"neck.convs.{level}.weight", f"scratch.layer{level + 1}_rn.weight"
        ours, official = f"neck.fusion_stage.layers.{level}.", f"scratch.refinenet{4 - level}."
        yield from _weight_and_bias(f"{ours}projection", f"{official}out_conv")
        for unit in (1, 2):
            for index in (1, 2):
                yield from _weight_and_bias(
                    f"{ours}residual_layer{unit}.convolution{index}",
                    f"{official}resConfUnit{unit}.conv{index}",
                )
    for index in (0, 2, 4):
        yield from _weight_and_bias(f"head.head.{index}", f"scratch.output_conv.{index}")


def _weight_and_bias(ours: str, official: str) -> Iterator[tuple[str, str]]:
    for name in ("weight", "bias"):
        yield f"{ours}.{name}", f"{official}.{name}"
