"""The two files that people use: float16, with all that the library wants to know of them."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hi3d_core.atomic_file import replacing
from hi3d_core.video_model import Stage
from hi3d_core.weights.load import load_video_model
from hi3d_core.weights.write import PendingTensor, write_safetensors

from ..engine.read_config import as_values
from ..weights_naming import metadata_of, state_of
from .settings import TinySettings

LARGEST = 20_000_000  # bytes of a file; both lie in the package
LOG = "training_log.json"
_CURVE = 200  # lines of a stage's log that are kept


def pack(state: Path, settings: TinySettings, out: Path) -> None:
    """Write orbit.safetensors, refiner.safetensors and the training's log into a folder.

    The log of the model that was begun from becomes a part of it.
    Raises ValueError for a file above 20 MB, or weights that float16 can't hold.
    """
    out.mkdir(parents=True, exist_ok=True)
    earlier = None  # read before anything is written: it may be the same folder
    if settings.begin is not None and (settings.begin / LOG).exists():
        earlier = json.loads((settings.begin / LOG).read_text(encoding="utf-8"))
    told = {
        "orbit": settings.orbit.sampling.metadata(settings.data.orbit_size),
        "refiner": settings.refiner.sampling.metadata(settings.data.refiner_size),
    }
    sources: tuple[tuple[Stage, str], ...] = (("orbit", "decoder"), ("refiner", "refiner_decoder"))
    for stage, source in sources:
        file = state / f"{source}.safetensors"
        if settings.begin is not None and stage not in settings.further:
            file = settings.begin / f"{stage}.safetensors"
        model = load_video_model(file, stage)
        target = out / f"{stage}.safetensors"
        tensors = {name: _half(name, each) for name, each in state_of(model).items()}
        pending = {
            name: PendingTensor(tuple(each.shape), each.dtype, each.contiguous)
            for name, each in tensors.items()
        }
        write_safetensors(target, pending, metadata_of(model) | told[stage])
        size = target.stat().st_size
        if size >= LARGEST:
            raise ValueError(f"{target} has {size} bytes, expected below {LARGEST}")
    machine = {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    log = {"settings": as_values(settings), "packed on": machine, "curves": _curves(state)}
    if earlier is not None:
        log["began from"] = earlier
    with replacing(out / LOG) as temporary:
        temporary.write_text(json.dumps(log, indent=1), encoding="utf-8")


def _half(name: str, tensor: Tensor) -> Tensor:
    half = tensor.half()
    if not torch.isfinite(half).all():
        raise ValueError(f"{name} goes up to {tensor.abs().max():g}, more than float16 can hold")
    return half


def _curves(state: Path) -> dict[str, list[dict[str, Any]]]:
    """The log of each stage that was trained, thinned out evenly; its last line stays."""
    curves = {}
    for stage in ("vae", "orbit", "decoder", "depth", "refiner", "refiner_decoder"):
        log = state / stage / "log.jsonl"
        if not log.exists():  # taken from an earlier model
            continue
        lines = log.read_text(encoding="utf-8").splitlines()
        every = max(1, len(lines) // _CURVE)
        kept = lines[::-1][::every][::-1]
        curves[stage] = [json.loads(line) for line in kept]
    return curves
