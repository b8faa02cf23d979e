"""Which of the video UNet's parameters are trained.

The published runs train all of them. Parts are chosen as in the official configurations: by pieces
of the parameters' official names, which begin with "diffusion_model.".
"""

from __future__ import annotations

from collections.abc import Sequence

from hi3d_core.networks.video_unet import VideoUNet
from hi3d_core.networks.video_unet_keys import official_sources

EVERYTHING = ("all",)
_PREFIX = "diffusion_model."


def official_name(network: VideoUNet) -> dict[str, str]:
    """Our name -> official name, with its prefix, for every parameter."""
    sources = official_sources(network.settings)
    return {name: _PREFIX + sources[name].name for name, _ in network.named_parameters()}


def choose_trained(network: VideoUNet, patterns: Sequence[str] = EVERYTHING) -> list[str]:
    """Let gradients into the parameters whose official name holds one of the patterns, no others.

    patterns: ("all",) for every parameter. Returns the official names chosen, in official order of
    the network's parameters. Raises ValueError if a pattern fits none.
    """
    names = official_name(network)
    everything = tuple(patterns) == EVERYTHING
    for pattern in patterns:
        if not everything and not any(pattern in name for name in names.values()):
            raise ValueError(
                f"no parameter's name holds {pattern!r}: expected pieces of official names such "
                "as '.time_stack.', or 'all' alone"
            )
    chosen = []
    for name, parameter in network.named_parameters():
        is_trained = everything or any(pattern in names[name] for pattern in patterns)
        parameter.requires_grad_(is_trained)
        if is_trained:
            chosen.append(names[name])
    return chosen
