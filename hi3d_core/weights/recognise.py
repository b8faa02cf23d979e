"""What a file of tensors is: which stage, in whose naming, with which networks inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .mismatch import CheckpointMismatch
from .parts import PARTS
from .tensor_file import TensorFile

_OFFICIAL_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
_DIFFUSERS_INPUT = "conv_in.weight"
_CHANNELS = {8: "orbit", 17: "refiner"}
_FILES = {"orbit": "first_stage.pt", "refiner": "second_stage.pt"}


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds.

    stage: "orbit", "refiner", "svd" (plain Stable Video Diffusion) or None (no video UNet in it).
    official: whether its names are the official ones; else they are diffusers' and transformers'.
    prefixes: of each network in it, by the names in `parts.PARTS`.
    settings: of the networks, where the file's metadata tells them.
    """

    stage: str | None
    official: bool
    prefixes: dict[str, str]
    settings: dict[str, Mapping[str, Any]]


def recognise(file: TensorFile) -> Contents:
    """Tell what the file is by its tensors' names and shapes, and its metadata."""
    if _OFFICIAL_INPUT in file.shapes:
        return _official(file)
    if "hi3d_stage" in file.metadata:
        return _converted(file)
    for part, sign in (
        ("unet", "time_embedding.linear_1.weight"),
        ("vae", "decoder.conv_in.weight"),
        ("image_encoder", "visual_projection.weight"),
        ("depth", "neck.convs.0.weight"),
    ):
        if sign in file.shapes:
            stage = _stage_of(file, _DIFFUSERS_INPUT) if part == "unet" else None
            return Contents(stage, False, {part: ""}, {})
    if "visual.class_embedding" in file.shapes:
        return Contents(None, True, {"image_encoder": "visual."}, {})
    if "scratch.layer1_rn.weight" in file.shapes:
        return Contents(None, True, {"depth": ""}, {})
    shown = ", ".join(list(file.shapes)[:3])
    raise CheckpointMismatch(
        f"{file.path} holds {len(file.shapes)} tensors ({shown}, ...) but none of Hi3D's networks: "
        "expected first_stage.pt, second_stage.pt, or a file that the convert command wrote"
    )


def check_stage(stage: str | None, wanted: str, path: object) -> None:
    """Raise CheckpointMismatch, in plain words, if the file is of another stage."""
    if stage == wanted:
        return
    expected = f"expected the {wanted} stage ({_FILES.get(wanted, wanted)})"
    found = {
        "orbit": "is stage 1, the orbit model (first_stage.pt)",
        "refiner": "is stage 2, the refiner (second_stage.pt)",
        "svd": "is plain Stable Video Diffusion, which knows no elevation",
        None: "holds no video UNet",
    }[stage]
    raise CheckpointMismatch(f"{path} {found}; {expected}")


def _official(file: TensorFile) -> Contents:
    prefixes = {
        name: prefix
        for name, part in PARTS.items()
        for prefix in part.official_prefixes
        if prefix.count(".") > 1 or prefix == "first_stage_model."
        if any(key.startswith(prefix) for key in file.shapes)
    }
    stage = _stage_of(file, _OFFICIAL_INPUT)
    if stage == "orbit":
        # Shaped alike; SVD decodes with temporal layers, and has no aesthetic score.
        temporal = any(
            key.startswith("first_stage_model.decoder.") and "time" in key for key in file.shapes
        )
        if temporal and "aesthetic" not in prefixes:
            stage = "svd"
    # Each stage numbers its conditioners by itself: 1 and 2 are networks in one stage only.
    for name, only in (("aesthetic", "orbit"), ("depth", "refiner")):
        if stage != only:
            prefixes.pop(name, None)
    return Contents(stage, True, prefixes, {})


def _converted(file: TensorFile) -> Contents:
    stage = file.metadata["hi3d_stage"]
    try:
        settings = json.loads(file.metadata["hi3d_settings"])
        prefixes = {name: f"{name}." for name in settings if name in PARTS}
        for name in prefixes:
            PARTS[name].read_settings(settings[name])
    except (LookupError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise CheckpointMismatch(
            f"the metadata of {file.path} is damaged ({error}): convert the checkpoint again"
        ) from error
    if stage == "image_encoder":
        return Contents(None, False, prefixes, settings)
    if stage not in _FILES:
        raise CheckpointMismatch(f"{file.path} says it is of stage {stage!r}, expected {_FILES}")
    return Contents(stage, False, prefixes, settings)


def _stage_of(file: TensorFile, name: str) -> str:
    """The stage by what its UNet takes; `name` is its input convolution's."""
    shape = file.shapes.get(name)
    if shape is None:
        raise CheckpointMismatch(
            f"{file.path} lacks {name}: it may be of another model, or an incomplete copy"
        )
    channels = shape[1] if len(shape) == 4 else 0
    if channels not in _CHANNELS:
        raise CheckpointMismatch(
            f"the UNet of {file.path} takes {channels} channels, expected 8 (orbit) or 17 (refiner)"
        )
    return _CHANNELS[channels]
