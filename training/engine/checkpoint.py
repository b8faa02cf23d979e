"""What a checkpoint holds, so that a run goes on from it as if it had never stopped.

weights.safetensors   under the names that hi3d_core.weights.load reads
ema.safetensors       the averages, likewise, if the run keeps any
training.safetensors  the optimizer's moments, and what the two others do not hold exactly
training.json         counters, settings, and where each trained tensor lies
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hi3d_core.weights.write import PendingTensor, write_safetensors

from . import deepspeed_state
from .checkpoint_folder import write_aside
from .optimizer_state import optimizer_tensors, restore_optimizer
from .prepared import Prepared
from .read_config import as_values
from .sharding import divided_like, gathered, is_divided, place_of

WEIGHTS, AVERAGES = "weights.safetensors", "ema.safetensors"
TRAINING, FACTS = "training.safetensors", "training.json"
_FORMAT = 1


def write_checkpoint(run: Prepared, target: Path, step: int) -> None:
    """Write a checkpoint after so many steps; all processes call it, the first one writes.

    Raises OSError or ValueError, in all processes, if the disk is full; what was written before
    stays whole.
    """
    problem: Exception | None = None
    main = run.accelerator.is_main_process
    contents = _Contents(run)
    contents.gather()
    if main:
        try:
            write_aside(target, lambda aside: contents.write(aside, step))
        except (OSError, ValueError, SafetensorError) as error:
            problem = error
    failed = torch.tensor(float(problem is not None), device=run.accelerator.device)
    # All wait here for the first one.
    failed = run.accelerator.reduce(failed, "sum")
    if failed > 0:
        raise OSError(
            f"the checkpoint of step {step} can't be written ({problem or 'see process 0'}): "
            "earlier ones are whole. Make space and go on with --resume"
        ) from problem


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """The counters and settings of a checkpoint.

    Raises ValueError if they can't be read.
    """
    path = checkpoint / FACTS
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != _FORMAT:
            raise ValueError(f"format {facts['format']}, known is {_FORMAT}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} can't be read ({error}): delete {checkpoint} to resume from the one before"
        ) from error
    return facts


def restore(run: Prepared, checkpoint: Path) -> int:
    """Give a run all that a checkpoint holds; returns the steps done.

    Raises ValueError if it is damaged or of another network.
    """
    facts = read_facts(checkpoint)
    weights, averages = _Reader(checkpoint / WEIGHTS), _Reader(checkpoint / AVERAGES)
    training = _Reader(checkpoint / TRAINING)
    homes: dict[str, str] = facts["weights"]
    if deepspeed_state.is_used(run):
        deepspeed_state.make_moments(run)
    for name, tensor in _exact_tensors(run).items():
        at_home = name in homes
        value = weights.read(homes[name]) if at_home else training.read(f"network.{name}")
        _copy(value, tensor, name, checkpoint)
    if run.averages is not None:
        for name, tensor in run.averages.values.items():
            at_home = name in homes and not facts["averages_apart"]
            value = averages.read(homes[name]) if at_home else training.read(f"average.{name}")
            _copy(value, tensor, name, checkpoint)
    begin = "optimizer."
    moments = {name: training.read(name) for name in training.names if name.startswith(begin)}
    if deepspeed_state.is_used(run):
        deepspeed_state.restore_moments(run, moments, facts["step"])
        deepspeed_state.restore_masters(run, training.read)
    else:
        restore_optimizer(run.optimizer, run.parameters, {**moments, **facts["optimizer"]})
    if run.accelerator.scaler is not None and facts["scaler"]:
        run.accelerator.scaler.load_state_dict(facts["scaler"])
    return int(facts["step"])


class _Contents:
    """What goes into the files. On one's own, tensors are read when they are written."""

    def __init__(self, run: Prepared) -> None:
        self._run = run
        self._gathered: list[dict[str, Tensor]] = []
        divided = is_divided(run.parameters.values())
        self.needs_all_processes = divided or deepspeed_state.is_used(run)

    def gather(self) -> None:
        """With the other processes: collect what they hold in parts, if they do."""
        if self.needs_all_processes:
            self._gathered = [self._weights(), self._averages(), self._training()[0]]

    def write(self, folder: Path, step: int) -> None:
        """Write all files into a folder."""
        run = self._run
        told: dict[str, str] = getattr(run.recipe, "metadata", dict)()
        metadata = {"format": "pt", "hi3d_step": str(step), **told}
        homes = self._homes()
        if self._gathered:
            weights, averages, training = self._gathered
            numbers: dict[str, Any] = {}
            _write(folder / WEIGHTS, weights, metadata)
            if averages:
                _write(folder / AVERAGES, averages, metadata)
        else:
            with run.module.merged():
                _write(folder / WEIGHTS, run.recipe.state(), metadata)
            if run.averages is not None:
                with run.averages.swapped_in(run.parameters), run.module.merged():
                    _write(folder / AVERAGES, run.recipe.state(), metadata)
            training, numbers = self._training()
        _write(folder / TRAINING, training, {"format": "pt"})
        scaler = run.accelerator.scaler
        facts = {
            "format": _FORMAT,
            "step": step,
            "settings": as_values(run.settings),
            "weights": homes,
            "averages_apart": self._averages_apart(),
            "optimizer": numbers,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "processes": run.accelerator.num_processes,
            "torch": torch.__version__,
        }
        (folder / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")

    def _weights(self) -> dict[str, Tensor]:
        with self._run.module.merged():
            return _copies(gathered(self._run.recipe.state()))

    def _averages(self) -> dict[str, Tensor]:
        run = self._run
        if run.averages is None:
            return {}
        with run.averages.swapped_in(run.parameters), run.module.merged():
            return _copies(gathered(run.recipe.state()))

    def _training(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        run, homes = self._run, self._homes()
        tensors = {
            f"network.{name}": tensor
            for name, tensor in _exact_tensors(run).items()
            if name not in homes
        }
        if run.averages is not None:
            tensors |= {
                f"average.{name}": value
                for name, value in run.averages.values.items()
                if name not in homes or self._averages_apart()
            }
        if deepspeed_state.is_used(run):
            return gathered(tensors) | deepspeed_state.tensors(run), {}
        moments, numbers = optimizer_tensors(run.optimizer, run.parameters)
        return gathered(tensors | moments), numbers

    def _homes(self) -> dict[str, str]:
        """Where in the weights' file trained tensors lie, if just so; by their names."""
        if self._run.module.lora is not None:
            return {}
        names = {place_of(each): name for name, each in self._run.recipe.state().items()}
        return {
            name: names[place_of(tensor)]
            for name, tensor in _exact_tensors(self._run).items()
            if tensor.numel() and place_of(tensor) in names
        }

    def _averages_apart(self) -> bool:
        """Whether the weights' number format is too coarse for the averages."""
        return any(each.dtype != torch.float32 for each in self._run.parameters.values())


def _exact_tensors(run: Prepared) -> dict[str, Tensor]:
    """All that changes by training: parameters, and buffers such as running means."""
    buffers = {name: buffer for name, buffer in run.module.named_buffers() if buffer.numel()}
    return {**{name: each.detach() for name, each in run.parameters.items()}, **buffers}


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: each.detach().to("cpu", copy=True) for name, each in tensors.items()}


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    pending = {
        name: PendingTensor(tuple(each.shape), each.dtype, each.detach)
        for name, each in tensors.items()
    }
    write_safetensors(path, pending, metadata)


@torch.no_grad()
def _copy(value: Tensor, into: Tensor, name: str, checkpoint: Path) -> None:
    if value.shape != into.shape:
        raise ValueError(
            f"{name} is {tuple(into.shape)} here and {tuple(value.shape)} in {checkpoint}: "
            "it is of another network"
        )
    into.copy_(divided_like(value.to(into.dtype), into))


class _Reader:
    """One file of a checkpoint."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.names: list[str] = []
        if path.exists():
            try:
                self._file = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise ValueError(
                    f"{path} is damaged ({error}): delete {path.parent} to resume from the "
                    "checkpoint before"
                ) from error
            self.names = list(self._file.keys())

    def read(self, name: str) -> Tensor:
        if name not in self.names:
            raise ValueError(f"{self._path} lacks {name}: it is of another network, or not whole")
        return self._file.get_tensor(name)
