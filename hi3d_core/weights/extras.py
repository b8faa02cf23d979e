"""Tensors that official files hold and sampling does not need."""

from __future__ import annotations

_TEXT_HALF = (
    "transformer.",
    "token_embedding.",
    "ln_final.",
    "positional_embedding",
    "text_projection",
    "logit_scale",
)
_DEPTH_UNUSED = ("pretrained.", "scratch.", "auxlayer.")

_EXTRAS = {
    ("", ("model_ema.",)): "averaged weights (EMA)",
    ("", ("warp_model.",)): "the training degradation",
    ("", ("loss_fn.", "first_stage_model.loss.")): "the training loss",
    ("conditioner.embedders.0.open_clip.model.", _TEXT_HALF): "the image encoder's text half",
    ("conditioner.embedders.1.aesthetic_model.", _TEXT_HALF): "the aesthetic encoder's text half",
    ("conditioner.embedders.2.model.model.", _DEPTH_UNUSED): "the depth network's unused layers",
    ("", _TEXT_HALF): "the image encoder's text half",  # OpenCLIP's own file
    ("", _DEPTH_UNUSED): "the depth network's unused layers",  # MiDaS' own file
}


def known_extra(name: str) -> str | None:
    """What an unused tensor is, or None if no one knows."""
    if name.endswith("position_ids"):
        return "position numbers"
    for (prefix, starts), what in _EXTRAS.items():
        if name.startswith(prefix) and name.removeprefix(prefix).startswith(starts):
            return what
    return None
