"""How work runs inside ComfyUI: its progress bar, its cancel button, its memory and folders."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.cli_args
import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..hi3d_core.datatypes import OnPreview, OnStage, OnStep

_PREVIEW = 512  # pixels, the longest side of a preview


@contextmanager
def working() -> Iterator[None]:
    """For work that needs gradients, or makes tensors that others will change.

    The host runs whole graphs in inference mode; tensors made there can't ever be trained. Caches
    are given back at the end, also after an error or a cancel.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        comfy.model_management.soft_empty_cache()


def told(name: str) -> OnStep:
    """An `OnStage`: each stage fills the node's progress bar anew; any step may be cancelled."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    bar = comfy.utils.ProgressBar(1)

    def on_step(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return on_step


def told_with_preview() -> tuple[OnStage, OnPreview]:
    """The same, and what shows pictures of the work so far beneath the node."""
    new: list[Image.Image] = []

    def on_stage(name: str) -> OnStep:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar = comfy.utils.ProgressBar(1)

        def on_step(done: int, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            shown = ("JPEG", new.pop(), _PREVIEW) if new else None
            bar.update_absolute(done, total, shown)

        return on_step

    def on_preview(frames: Tensor) -> None:
        new[:] = [contact(frames)]

    return on_stage, on_preview


def contact(frames: Tensor) -> Image.Image:
    """Frames (F, h, w, 3) as one picture, in rows, as near to a square as their number allows."""
    columns = math.ceil(math.sqrt(len(frames)))
    rows = math.ceil(len(frames) / columns)
    height, width = frames.shape[1:3]
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        pixels = (frame.clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = pixels
    return Image.fromarray(sheet)


def new_output(prefix: str, suffix: str) -> tuple[Path, str]:
    """A new numbered file in the output folder: its path, and its name within that folder.

    prefix: as for the host's own save nodes, with subfolders and its %date% patterns. Raises
    ValueError for a prefix that leads out of the output folder.
    """
    root = Path(folder_paths.get_output_directory())
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, str(root))
    except Exception as error:  # the host raises a bare Exception
        raise ValueError(
            f"the name prefix {prefix!r} can't be used ({error}): give a name, or folder/name, "
            "within ComfyUI's output folder"
        ) from error
    if not Path(folder).resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"the name prefix {prefix!r} leads out of ComfyUI's output folder: give a name, or "
            "folder/name, within it"
        )
    file = Path(folder) / f"{name}_{counter:05}_{suffix}"
    while file.exists():
        counter += 1
        file = Path(folder) / f"{name}_{counter:05}_{suffix}"
    return file, (Path(subfolder) / file.name).as_posix()


def workflow_texts(hidden: Any) -> dict[str, str]:
    """The running prompt and its workflow as JSON, by the names under which the host's own nodes
    keep them; nothing where the host was started with --disable-metadata."""
    if comfy.cli_args.args.disable_metadata:
        return {}
    parts = dict(getattr(hidden, "extra_pnginfo", None) or {})
    if getattr(hidden, "prompt", None) is not None:
        parts["prompt"] = hidden.prompt
    return {name: json.dumps(value) for name, value in parts.items()}


def input_file(name: str) -> Path:
    """A file that the user named: within the input folder, or by its full path.

    Raises ValueError if there is none.
    """
    given = Path(name.strip().strip('"')).expanduser()
    path = given if given.is_absolute() else Path(folder_paths.get_input_directory()) / given
    if not path.exists():
        raise ValueError(
            f"{path} does not exist: put the file into ComfyUI's input folder and give its name, "
            "or give its full path"
        )
    return path
