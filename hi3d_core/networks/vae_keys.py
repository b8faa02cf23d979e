"""Where the autoencoder's tensors lie in an official checkpoint, and settings told from shapes.

An official file holds the network twice, under "first_stage_model." and under
"conditioner.embedders.3.encoder."; the names here are those after either. The official decoder
counts its levels from the largest picture on, ours from the smallest.
"""

from __future__ import annotations

from collections.abc import Iterator

from .official_keys import Source
from .tensor_shapes import Shapes, count_indices, shape_of
from .vae import VaeConfig

_NETWORK = "autoencoder"
_RESIDUAL = ("norm1", "conv1", "norm2", "conv2")
_ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}

Pairs = Iterator[tuple[str, Source]]


def official_sources(settings: VaeConfig) -> dict[str, Source]:
    """Our name -> where it lies, for every tensor of a network with these settings."""
    return dict(_tensors(settings))


def settings_from_official(shapes: Shapes) -> VaeConfig:
    """The settings of the autoencoder with these tensors, official names without prefix -> shapes.

    Raises ValueError if tensors lack that tell the settings, or for SVD's decoder over time.
    """
    return _settings(shapes, "encoder.down.{}.block.", r"encoder\.down\.(\d+)\.")


def settings_from_diffusers(shapes: Shapes) -> VaeConfig:
    """As `settings_from_official`, from tensors in diffusers' naming, which is ours."""
    return _settings(shapes, "encoder.down_blocks.{}.resnets.", r"encoder\.down_blocks\.(\d+)\.")


def _settings(shapes: Shapes, blocks: str, level_pattern: str) -> VaeConfig:
    if any("time_conv_out" in name or ".time_stack." in name for name in shapes):
        raise ValueError(
            "this is Stable Video Diffusion's autoencoder, whose decoder works over time; Hi3D "
            "decodes frame by frame: take the one in its own checkpoint, or Stable Diffusion's"
        )
    levels = count_indices(shapes, level_pattern)
    first = blocks.format(0).replace(".", r"\.")
    return VaeConfig(
        channels=tuple(
            shape_of(shapes, f"{blocks.format(level)}0.conv1.weight", _NETWORK)[0]
            for level in range(max(levels, 1))
        ),
        layers_per_block=count_indices(shapes, first + r"(\d+)\."),
        latent_channels=shape_of(shapes, "decoder.conv_in.weight", _NETWORK)[1],
    )


def _tensors(settings: VaeConfig) -> Pairs:
    last = len(settings.channels) - 1
    for half in ("encoder", "decoder"):
        for ours, official in (
            ("conv_in", "conv_in"),
            ("conv_norm_out", "norm_out"),
            ("conv_out", "conv_out"),
        ):
            yield from _weight_and_bias(f"{half}.{ours}", f"{half}.{official}")
        yield from _middle(f"{half}.mid_block.", f"{half}.mid.")
    before = settings.channels[0]
    for level, channels in enumerate(settings.channels):
        ours, official = f"encoder.down_blocks.{level}.", f"encoder.down.{level}."
        yield from _level(ours, official, settings.layers_per_block, before != channels)
        if level != last:
            yield from _weight_and_bias(f"{ours}downsamplers.0.conv", f"{official}downsample.conv")
        before = channels
    for level, channels in enumerate(reversed(settings.channels)):
        ours, official = f"decoder.up_blocks.{level}.", f"decoder.up.{last - level}."
        yield from _level(ours, official, settings.layers_per_block + 1, before != channels)
        if level != last:
            yield from _weight_and_bias(f"{ours}upsamplers.0.conv", f"{official}upsample.conv")
        before = channels
    for name in ("quant_conv", "post_quant_conv"):
        yield from _weight_and_bias(name, name)


def _level(ours: str, official: str, layers: int, shortcut: bool) -> Pairs:
    for layer in range(layers):
        yield from _residual(f"{ours}resnets.{layer}.", f"{official}block.{layer}.")
    if shortcut:
        yield from _weight_and_bias(
            f"{ours}resnets.0.conv_shortcut", f"{official}block.0.nin_shortcut"
        )


def _middle(ours: str, official: str) -> Pairs:
    yield from _residual(f"{ours}resnets.0.", f"{official}block_1.")
    yield from _residual(f"{ours}resnets.1.", f"{official}block_2.")
    ours, official = f"{ours}attentions.0.", f"{official}attn_1."
    yield from _weight_and_bias(f"{ours}group_norm", f"{official}norm")
    for name, other in _ATTENTION.items():
        # A 1 x 1 convolution in the file, a linear layer here.
        yield f"{ours}{name}.weight", Source(f"{official}{other}.weight", kernel=True)
        yield f"{ours}{name}.bias", Source(f"{official}{other}.bias")


def _residual(ours: str, official: str) -> Pairs:
    for name in _RESIDUAL:
        yield from _weight_and_bias(ours + name, official + name)


def _weight_and_bias(ours: str, official: str) -> Pairs:
    for name in ("weight", "bias"):
        yield f"{ours}.{name}", Source(f"{official}.{name}")
