"""A model's tensors under the names of a converted checkpoint, which the loader reads.

Names are `<network>.<tensor>`, with the networks' settings in the file's metadata.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from torch import Tensor, nn

from hi3d_core.video_model import VideoModel
from hi3d_core.weights.parts import PARTS, ROLES


def state_of(model: VideoModel) -> dict[str, Tensor]:
    """All networks' tensors, not copied; the second autoencoder only if it is another one."""
    return {
        f"{name}.{key}": tensor
        for name, network in _networks(model).items()
        for key, tensor in network.state_dict().items()
    }


def metadata_of(model: VideoModel) -> dict[str, str]:
    """What the file shall say of itself: the stage and the networks' settings."""
    settings = {
        name: dataclasses.asdict(_settings(name, network))
        for name, network in _networks(model).items()
    }
    return {"hi3d_stage": model.stage, "hi3d_settings": json.dumps(settings)}


def _networks(model: VideoModel) -> dict[str, nn.Module]:
    networks = {name: getattr(model, name) for name in ROLES[model.stage]}
    if model.conditioning_vae is model.vae:
        del networks["conditioning_vae"]
    return {name: network for name, network in networks.items() if network is not None}


def _settings(name: str, network: Any) -> Any:
    """The dataclass that the network was built from, or what its shapes and heads tell."""
    if hasattr(network, "settings"):
        return network.settings
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    encoder = network.encoder if name == "aesthetic" else network
    if name in ("image_encoder", "aesthetic"):
        return PARTS[name].from_ours(shapes, heads=encoder.config.num_attention_heads)
    return PARTS[name].from_ours(shapes)
