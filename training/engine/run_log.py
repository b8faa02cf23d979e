"""The log of a run: lines of JSON, pictures, and TensorBoard's files where that is installed."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from hi3d_core.atomic_file import replacing
from hi3d_core.optional import is_available

LOG, SAMPLES, TENSORBOARD = "log.jsonl", "samples", "tensorboard"


class RunLog:
    """Writes to a run's folder; in all processes but the first it does nothing."""

    def __init__(self, folder: Path, steps_done: int, *, active: bool = True) -> None:
        """Go on after so many steps: what an earlier run logged later than that is dropped."""
        self._folder, self._active = folder, active
        self._board: Any = None
        if not active:
            return
        _cut(folder / LOG, steps_done)
        if is_available("tensorboard"):
            writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
            self._board = writer(str(folder / TENSORBOARD), purge_step=steps_done + 1)

    def numbers(self, step: int, values: dict[str, float]) -> None:
        """One line: so many steps are done, and what was measured."""
        if not self._active:
            return
        line = {"step": step} | {name: _plain(value) for name, value in values.items()}
        with (self._folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def pictures(self, step: int, pictures: Tensor) -> None:
        """A grid of pictures, (N, H, W, 3) in [0, 1].

        Raises ValueError for another shape.
        """
        if not self._active:
            return
        if pictures.ndim != 4 or pictures.shape[3] != 3 or not len(pictures):
            raise ValueError(
                f"the recipe's samples are {tuple(pictures.shape)}, expected (N, H, W, 3)"
            )
        grid = picture_grid(pictures.detach().float().cpu().numpy())
        (self._folder / SAMPLES).mkdir(exist_ok=True)
        path = self._folder / SAMPLES / f"step_{step:07d}.png"
        with replacing(path) as temporary:
            Image.fromarray(grid).save(temporary)
        if self._board is not None:
            self._board.add_image("samples", grid, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still to be written."""
        if self._board is not None:
            self._board.close()


def picture_grid(pictures: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) in [0, 1] -> one picture of bytes, about as wide as high, row by row."""
    count, height, width, _ = pictures.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    # A picture that is not finite shows black rather than stopping the training.
    bytes_ = (np.nan_to_num(pictures).clip(0, 1) * 255).round().astype(np.uint8)
    filled = np.zeros((rows * columns, height, width, 3), np.uint8)
    filled[:count] = bytes_
    laid = filled.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return laid.reshape(rows * height, columns * width, 3)


def _plain(value: float) -> float | None:
    """JSON has no infinities."""
    return float(value) if math.isfinite(value) else None


def _cut(path: Path, steps_done: int) -> None:
    """Drop lines of later steps, and a last one that was cut off by a kill."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= steps_done:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    with replacing(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
