"""How work runs inside ComfyUI: its progress bar, its cancel button, its memory and folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch

from ..hi3d_core.datatypes import OnStep


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
