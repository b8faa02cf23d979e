"""One step without writing anything: does it fit, and what would it write?"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import psutil
import torch
from torch import Tensor

from ..recipe import Recipe
from . import deepspeed_state
from .checkpoint import AVERAGES, TRAINING, WEIGHTS
from .loop import CHECKPOINTS
from .optimizer_state import optimizer_tensors
from .prepared import prepare, take_step
from .settings import EngineSettings

_GIB = 2**30


def dry_run(recipe: Recipe, settings: EngineSettings, folder: str | Path) -> str:
    """Take the first step of a run and tell of it, in lines; the networks are changed by it.

    Raises NonFiniteLoss, or whatever would stop the run.
    """
    run = prepare(recipe, settings)
    device = run.accelerator.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    told = take_step(run, 0)
    moments, _ = optimizer_tensors(run.optimizer, run.parameters)
    trained, moment_bytes = _bytes(run.parameters.values()), _bytes(moments.values())
    average_bytes = _bytes(run.averages.values.values()) if run.averages is not None else 0
    count = sum(each.numel() for each in run.parameters.values())
    if deepspeed_state.is_used(run):  # two moments and the exact weights, in float32
        moment_bytes = 3 * 4 * count
    state_bytes = _bytes(recipe.state().values())
    files = {WEIGHTS: state_bytes, TRAINING: moment_bytes}
    if run.averages is not None:
        files[AVERAGES] = state_bytes
    terms = ", ".join(f"{name} {value:.6g}" for name, value in told.terms.items())
    one = sum(files.values())
    keep = settings.train.keep
    return "\n".join(
        [
            f"trained: {count:,} parameters in {len(run.parameters)} tensors",
            f"on: {run.accelerator.num_processes} x {device}, precision {settings.train.precision}",
            f"first step: {terms}, gradient norm {told.gradient_norm:.6g}",
            f"memory a process: weights {_gib(trained)}, gradients {_gib(trained)}, "
            f"moments {_gib(moment_bytes)}, averages {_gib(average_bytes)}; peak {_peak(device)}",
            f"would write to {Path(folder) / CHECKPOINTS}: {settings.train.keep} checkpoints, each "
            + ", ".join(f"{name} {_gib(size)}" for name, size in files.items()),
            # One more than are kept, while the newest is written.
            f"disk: {_gib((keep + 1) * one)} at most, {_gib(_free(Path(folder)))} are free",
            "nothing was written",
        ]
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def _gib(size: float) -> str:
    return f"{size / _GIB:.2f} GiB" if size >= _GIB / 10 else f"{size / 2**20:.2f} MiB"


def _peak(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{_gib(torch.cuda.max_memory_allocated(device))} on the GPU"
    return f"{_gib(psutil.Process().memory_info().rss)} of the whole process now"


def _free(folder: Path) -> int:
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free
