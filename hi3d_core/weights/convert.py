"""Any checkpoint -> safetensors files that are safe to open, small, and load at once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import cast

import torch

from ..datatypes import OnStage, OnStep, silent_stage
from ..video_model import Stage
from .find import MODEL_FILES
from .load import (
    Holding,
    Plan,
    Unseen,
    checkpoint_of,
    defaults_of,
    find_holdings,
    is_copy,
    plan_network,
)
from .mismatch import CheckpointMismatch
from .parts import ROLES
from .recognise import recognise
from .tensor_file import open_tensors
from .write import PendingTensor, sha256_of, write_safetensors

_log = logging.getLogger(__name__)


def convert(
    path: str | Path,
    out: str | Path,
    *,
    dtype: torch.dtype | None = torch.float16,
    image_encoder: str | Path | None = None,
    depth: str | Path | None = None,
    vae: str | Path | None = None,
    image_encoder_inside: bool = False,
    unseen: Unseen | None = None,
    on_stage: OnStage = silent_stage,
) -> list[Path]:
    """Write one stage's networks, and nothing else, to one safetensors file.

    path: a checkpoint as `load_video_model` takes it; the stage is recognised.
    image_encoder, depth, vae, unseen: as there. out: ends in .safetensors.
    dtype: of the copy; None keeps each tensor's own.
    image_encoder_inside: put the image encoder into the file. Else it goes, once, into
        `hi3d_image_encoder.safetensors` beside it, where both stages' copies find it, unless
        another encoder lies there already.

    The metadata tells the stage, the networks' settings, name and SHA-256 of the source, and
    what the source itself says of its frames and of sampling.
    Tensors are read and written one by one. Returns the files written.

    Raises CheckpointMismatch and ValueError as `load_video_model`.
    """
    path, out = Path(path), Path(out)
    if out.suffix.lower() != ".safetensors":
        raise ValueError(f"--out is {out}, expected a name that ends in .safetensors")
    beside = out.with_name(MODEL_FILES["image_encoder"].names[0])
    if out == beside:
        raise ValueError(
            f"--out is {out}, which is the name of the image encoder's file beside: write to "
            f"another name, such as {MODEL_FILES['orbit'].names[0]}"
        )
    with ExitStack() as stack:
        stage = _stage(path)
        holdings = find_holdings(stack, path, stage, image_encoder, depth, vae)
        _check_no_input(out, holdings)
        plans = _plan(stage, holdings, unseen or {})
        metadata = {
            "hi3d_source": path.name,
            "hi3d_source_sha256": _hash(holdings["unet"].file.files, on_stage("hash")),
        }
        defaults = defaults_of(holdings["unet"].file, stage)
        of_stage = metadata if defaults is None else {**metadata, **defaults.to_metadata()}
        encoder = plans["image_encoder"]
        if beside.exists() and not image_encoder_inside:
            image_encoder_inside = not _is_encoder_of(beside, encoder, dtype)
            if image_encoder_inside:
                _log.info("%s is another image encoder: this one goes into %s", beside, out)
        if not image_encoder_inside:
            del plans["image_encoder"]
        _write(out, stage, plans, dtype, of_stage, on_stage("write"))
        if image_encoder_inside or beside.exists():
            return [out]
        encoder_alone = {"image_encoder": encoder}
        _write(beside, "image_encoder", encoder_alone, dtype, metadata, on_stage("image encoder"))
        _log.info("the image encoder, which both stages share, is in %s", beside)
    return [out, beside]


def _stage(path: Path) -> Stage:
    with open_tensors(checkpoint_of(path)) as file:
        stage = recognise(file).stage
    if stage in ROLES:
        return cast(Stage, stage)
    found = "plain Stable Video Diffusion" if stage == "svd" else "no video UNet"
    raise CheckpointMismatch(
        f"{path} holds {found}, expected one of Hi3D's stages (first_stage.pt or second_stage.pt)"
    )


def _check_no_input(out: Path, holdings: dict[str, Holding]) -> None:
    """Refuse to overwrite a file that is read."""
    read = {file for holding in holdings.values() for file in holding.file.files}
    if out.exists() and any(out.samefile(file) for file in read):
        raise ValueError(f"{out} is a file to be converted: write to another name")


def _plan(stage: Stage, holdings: dict[str, Holding], unseen: Unseen) -> dict[str, Plan]:
    plans = {}
    for name in ROLES[stage]:
        holding = holdings.get(name)
        if holding is None or (name == "conditioning_vae" and is_copy(holding, holdings["vae"])):
            continue
        plans[name] = plan_network(name, holding, unseen.get(name, {}))
    return plans


def _write(
    out: Path,
    stage: str,
    plans: dict[str, Plan],
    dtype: torch.dtype | None,
    metadata: dict[str, str],
    on_step: OnStep | None,
) -> None:
    settings = {name: dataclasses.asdict(plan.settings) for name, plan in plans.items()}
    pending = {}
    for name, plan in plans.items():
        for key, target in plan.network.state_dict().items():
            kind = dtype or plan.dtype(key)
            make = partial(plan.read, key, kind)
            pending[f"{name}.{key}"] = PendingTensor(tuple(target.shape), kind, make)
    told = {"format": "pt", "hi3d_stage": stage, "hi3d_settings": json.dumps(settings), **metadata}
    write_safetensors(out, pending, told, on_step=on_step)


def _hash(files: Sequence[Path], on_step: OnStep | None) -> str:
    """The SHA-256 of a checkpoint's file; of several, that of theirs one after the other."""
    if len(files) == 1:
        return sha256_of(files[0], on_step)
    together = "".join(sha256_of(each, on_step) for each in files)
    return hashlib.sha256(together.encode()).hexdigest()


def _is_encoder_of(beside: Path, plan: Plan, dtype: torch.dtype | None) -> bool:
    """Whether the file holds this very encoder, so that both stages can share it."""
    with open_tensors(beside) as file:
        for key in plan.network.state_dict():
            name = f"image_encoder.{key}"
            expected = plan.read(key, dtype or plan.dtype(key))
            if name not in file.shapes or not torch.equal(file.read(name).to(expected), expected):
                return False
    return True
