"""Tensors that official files hold and sampling does not need."""

from __future__ import annotations

from ..networks.depth_network_keys import CLASSIFIER
from ..networks.image_encoder_keys import TEXT_HALF

_EXTRAS = {
    ("", ("model_ema.",)): "averaged weights (EMA)",
    ("", ("warp_model.",)): "the training degradation",
    ("", ("loss_fn.", "first_stage_model.loss.")): "the training loss",
    ("conditioner.embedders.0.open_clip.model.", TEXT_HALF): "the image encoder's text half",
    ("conditioner.embedders.1.aesthetic_model.", TEXT_HALF): "the aesthetic encoder's text half",
    ("conditioner.embedders.2.model.model.", CLASSIFIER): "the depth network's classifier",
    ("", TEXT_HALF): "the image encoder's text half",  # OpenCLIP's own file
    ("", CLASSIFIER): "the depth network's classifier",  # MiDaS' own file
}


def known_extra(name: str) -> str | None:
    """What an unused tensor is, or None if no one knows."""
    if name.endswith("position_ids"):
        return "position numbers"
    for (prefix, starts), what in _EXTRAS.items():
        if name.startswith(prefix) and name.removeprefix(prefix).startswith(starts):
            return what
    return None
