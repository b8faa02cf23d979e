"""Tensors recorded from the official code: an optional folder beside the project.

`HI3D_GOLDEN` names the folder (default: ../shared/golden). Every size, width and setting comes from
its `manifest.json`, so that other sets of the same layout test the same code.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

ROOT = Path(os.environ.get("HI3D_GOLDEN", Path(__file__).parents[4] / "shared" / "golden"))


def need(path: str) -> Path:
    """The file in the golden folder; skips the test, by name, if it is not there."""
    found = ROOT / path
    if not found.exists():
        pytest.skip(f"{found} is missing: set HI3D_GOLDEN to a folder of recorded tensors")
    return found


@cache
def manifest() -> dict[str, Any]:
    """`manifest.json`: what was recorded, and with which settings."""
    return json.loads(need("manifest.json").read_text())


def settings() -> dict[str, Any]:
    """The manifest's `config`: widths, heads, elevation, sizes in pixels."""
    return manifest()["config"]


def golden(path: str, name: str) -> Tensor:
    """One tensor of a safetensors file; half precision is given as float32.

    Skips the test, by name, where the set does not hold it.
    """
    with safe_open(need(path), framework="pt") as file:
        if name not in file.keys():  # noqa: SIM118 (not a dict)
            pytest.skip(f"{path} of {ROOT} holds no {name}")
        tensor = file.get_tensor(name)
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def official_state(path: str, prefix: str) -> dict[str, Tensor]:
    """Float32 tensors of an official `.pt` whose key starts with `prefix`, which is cut off."""
    loaded = torch.load(need(path), map_location="cpu", weights_only=True)
    state = loaded.get("module", loaded)
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {
        name.removeprefix(prefix): tensor.float()
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def relative_error(ours: Tensor, official: Tensor) -> float:
    """max |a - b| / max |b|, the measure of every golden test."""
    assert ours.shape == official.shape, (tuple(ours.shape), tuple(official.shape))
    return float((ours.float() - official.float()).abs().max() / official.float().abs().max())
