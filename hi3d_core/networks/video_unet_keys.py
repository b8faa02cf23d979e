"""Where the video UNet's tensors lie in an official checkpoint, and settings told from shapes.

The official network numbers its blocks through: `input_blocks.0` is the first convolution, then
come each level's layers and, but for the last level, a downsampling; `output_blocks` go the other
way, with one layer more a level, and the level's last block also upsamples. Attention is in all
levels but the deepest. Names are those after "model.diffusion_model.".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .official_keys import Source
from .tensor_shapes import Shapes, count_indices, shape_of
from .video_unet import VideoUNetConfig

_NETWORK = "video UNet"

_RESIDUAL = {  # ours, in the spatial half and in the temporal half -> official
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_ATTENTION = {
    "norm": "norm",
    "proj_in": "proj_in",
    "proj_out": "proj_out",
    "time_pos_embed.linear_1": "time_pos_embed.0",
    "time_pos_embed.linear_2": "time_pos_embed.2",
}
_PROJECTIONS = ("to_q", "to_k", "to_v")  # the only layers without a bias

Pairs = Iterator[tuple[str, str]]


def official_sources(settings: VideoUNetConfig) -> dict[str, Source]:
    """Our name -> where it lies, for every tensor of a network with these settings."""
    return {ours: Source(official) for ours, official in _tensors(settings)}


def settings_from_official(shapes: Shapes, head_channels: int = 64) -> VideoUNetConfig:
    """The settings of the UNet with these tensors, official names without the prefix -> shapes.

    head_channels can't be seen in any shape; nor can the frames, which are the default's.
    Raises ValueError if tensors are missing that tell the settings.
    """
    in_channels = shape_of(shapes, "input_blocks.0.0.weight", _NETWORK)[1]
    downsamplings = count_indices(shapes, r"input_blocks\.(\d+)\.0\.op\.")
    levels, numbers = downsamplings + 1, count_indices(shapes, r"input_blocks\.(\d+)\.")
    layers = (numbers - 1 - downsamplings) // levels
    residuals = [f"input_blocks.{1 + level * (layers + 1)}.0." for level in range(levels)]
    return VideoUNetConfig(
        in_channels=in_channels,
        vector_channels=shape_of(shapes, "label_emb.0.0.weight", _NETWORK)[1],
        block_channels=tuple(
            shape_of(shapes, f"{name}in_layers.2.weight", _NETWORK)[0] for name in residuals
        ),
        head_channels=head_channels,
        layers_per_block=layers,
        outer_attention=_has(shapes, "input_blocks.1.1."),
        **_transformer_settings(shapes, "middle_block.1."),
    )


def settings_from_diffusers(shapes: Shapes, head_channels: int = 64) -> VideoUNetConfig:
    """As `settings_from_official`, from tensors in diffusers' naming, which is ours."""
    in_channels = shape_of(shapes, "conv_in.weight", _NETWORK)[1]
    residual = "down_blocks.{}.resnets.0.spatial_res_block.conv1.weight"
    levels = count_indices(shapes, r"down_blocks\.(\d+)\.")
    return VideoUNetConfig(
        in_channels=in_channels,
        vector_channels=shape_of(shapes, "add_embedding.linear_1.weight", _NETWORK)[1],
        block_channels=tuple(
            shape_of(shapes, residual.format(level), _NETWORK)[0] for level in range(levels)
        ),
        head_channels=head_channels,
        layers_per_block=count_indices(shapes, r"down_blocks\.0\.resnets\.(\d+)\."),
        outer_attention=_has(shapes, "down_blocks.0.attentions.0."),
        **_transformer_settings(shapes, "mid_block.attentions.0."),
    )


def _has(shapes: Shapes, place: str) -> bool:
    return any(name.startswith(place) for name in shapes)


def _transformer_settings(shapes: Shapes, place: str) -> dict[str, int]:
    """What the transformer at `place` tells."""
    blocks = f"{place}transformer_blocks."
    return {
        "context_channels": shape_of(shapes, f"{blocks}0.attn2.to_k.weight", _NETWORK)[1],
        "transformer_layers": count_indices(shapes, re.escape(blocks) + r"(\d+)\."),
    }


def _tensors(settings: VideoUNetConfig) -> Pairs:
    """(ours, official) for every tensor."""
    for ours, official in _ENDS.items():
        yield from _weight_and_bias(ours, official)
    yield from _input_tensors(settings)
    yield from _residual("mid_block.resnets.0.", "middle_block.0.", shortcut=False)
    yield from _attention("mid_block.attentions.0.", "middle_block.1.", settings)
    yield from _residual("mid_block.resnets.1.", "middle_block.2.", shortcut=False)
    yield from _output_tensors(settings)


def _input_tensors(settings: VideoUNetConfig) -> Pairs:
    number, before, last = 1, settings.block_channels[0], len(settings.block_channels) - 1
    for level, channels in enumerate(settings.block_channels):
        block = f"down_blocks.{level}."
        for layer in range(settings.layers_per_block):
            official = f"input_blocks.{number}."
            yield from _residual(f"{block}resnets.{layer}.", f"{official}0.", before != channels)
            if settings.attends(level):
                yield from _attention(f"{block}attentions.{layer}.", f"{official}1.", settings)
            number, before = number + 1, channels
        if level != last:
            yield from _weight_and_bias(
                f"{block}downsamplers.0.conv", f"input_blocks.{number}.0.op"
            )
            number += 1


def _output_tensors(settings: VideoUNetConfig) -> Pairs:
    layers, last = settings.layers_per_block + 1, len(settings.block_channels) - 1
    for level in range(last + 1):  # 0 is the deepest
        block = f"up_blocks.{level}."
        for layer in range(layers):
            official = f"output_blocks.{level * layers + layer}."
            # Skip connections are laid beside the input, so it always has too many channels.
            yield from _residual(f"{block}resnets.{layer}.", f"{official}0.", shortcut=True)
            if attends := settings.attends(last - level):
                yield from _attention(f"{block}attentions.{layer}.", f"{official}1.", settings)
        if level != last:
            place = f"output_blocks.{level * layers + layers - 1}.{2 if attends else 1}"
            yield from _weight_and_bias(f"{block}upsamplers.0.conv", f"{place}.conv")


def _residual(ours: str, official: str, shortcut: bool) -> Pairs:
    for half, place in (("spatial_res_block.", ""), ("temporal_res_block.", "time_stack.")):
        for name, other in _RESIDUAL.items():
            yield from _weight_and_bias(ours + half + name, official + place + other)
    if shortcut:
        yield from _weight_and_bias(
            f"{ours}spatial_res_block.conv_shortcut", f"{official}skip_connection"
        )
    yield f"{ours}time_mixer.mix_factor", f"{official}time_mixer.mix_factor"


def _attention(ours: str, official: str, settings: VideoUNetConfig) -> Pairs:
    for name, other in _ATTENTION.items():
        yield from _weight_and_bias(ours + name, official + other)
    yield f"{ours}time_mixer.mix_factor", f"{official}time_mixer.mix_factor"
    for layer in range(settings.transformer_layers):
        spatial, temporal = f"transformer_blocks.{layer}.", f"time_stack.{layer}."
        yield from _transformer(ours + spatial, official + spatial, ("ff",))
        yield from _transformer(f"{ours}temporal_{spatial}", official + temporal, ("ff_in", "ff"))
        yield from _weight_and_bias(
            f"{ours}temporal_{spatial}norm_in", f"{official}{temporal}norm_in"
        )


def _transformer(ours: str, official: str, feed_forwards: tuple[str, ...]) -> Pairs:
    """One transformer block; within it both name everything alike."""
    named = [f"{name}.net.{part}" for name in feed_forwards for part in ("0.proj", "2")]
    named += ["norm1", "norm2", "norm3", "attn1.to_out.0", "attn2.to_out.0"]
    for name in named:
        yield from _weight_and_bias(ours + name, official + name)
    for name in (f"{part}.{layer}.weight" for part in ("attn1", "attn2") for layer in _PROJECTIONS):
        yield ours + name, official + name


def _weight_and_bias(ours: str, official: str) -> Pairs:
    for name in ("weight", "bias"):
        yield f"{ours}.{name}", f"{official}.{name}"
