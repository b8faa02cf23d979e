"""Hi3D's networks inside ComfyUI: found in its model folders, given room on its device.

The weights stay in main memory, mapped from their files; the library brings each network to the
device while it works and takes it away again. So nothing is left there after a run, and all that
is asked of the host is to make room for the largest network and its activations.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io

from ..hi3d_core.weights.find import (
    BUNDLED_NAME,
    WHAT_THE_SMALL_MODEL_IS,
    WeightsKind,
    find_stage,
    find_stages,
    find_weights,
    is_bundled,
)

if TYPE_CHECKING:
    from ..hi3d_core.video_model import Stage, VideoModel

_log = logging.getLogger(__name__)

FOLDER = "hi3d"
SUFFIXES = {".safetensors", ".pt", ".ckpt", ".bin"}
AUTO = "auto"
BUNDLED = f"{BUNDLED_NAME} (bundled)"
DTYPES = {
    AUTO: None,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
}

Choices = dict[WeightsKind, str]

ModelSocket = io.Custom("HI3D_MODEL")
DepthSocket = io.Custom("HI3D_DEPTH")
"""Relative inverse depth (F, H, W) in [0, 1] a frame, 1 being nearest."""

# Of the UNet while it works, in multiples of its outermost hidden states, both branches of
# guidance together; counted by benchmarks/bench_sampling.py.
_ACTIVATIONS = 28


def register_folder() -> None:
    """Tell the host of models/hi3d; once, before schemas are read."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    folder_paths.folder_names_and_paths[FOLDER][1].update(SUFFIXES)


def model_choices(kind: WeightsKind) -> list[str]:
    """What a combo offers: the best known name that is there, the small model in the package, or
    any file by its name."""
    small = [BUNDLED] if kind in ("orbit", "refiner") else []
    return [AUTO, *small, *sorted(folder_paths.get_filename_list(FOLDER))]


def checkpoint(kind: WeightsKind, choices: Choices) -> Path:
    """Where the chosen weights are.

    Raises ValueError if they are missing: what they are called, who offers them, how large they
    are and where to put them.
    """
    _check_there(choices[kind])
    folders = folder_paths.get_folder_paths(FOLDER)
    if kind in ("orbit", "refiner"):
        return find_stage(kind, _given(choices), folders)
    return find_weights(kind, _path(choices[kind]), folders)


def _check_there(choice: str) -> None:
    if choice not in (AUTO, BUNDLED) and folder_paths.get_full_path(FOLDER, choice) is None:
        raise ValueError(
            f"{choice} is no longer in ComfyUI's folder models/{FOLDER}: choose another, or put it "
            "back"
        )


def _given(choices: Choices) -> dict[Stage, str | Path | None]:
    return {"orbit": _path(choices["orbit"]), "refiner": _path(choices["refiner"])}


def _path(choice: str) -> str | Path | None:
    if choice == AUTO:
        return None
    if choice == BUNDLED:
        return BUNDLED_NAME
    return folder_paths.get_full_path(FOLDER, choice) or Path(choice)


@dataclass(eq=False)
class Hi3DModel:
    """What the loader hands on: choices, and each stage's networks once they were needed.

    choices: a file's name in models/hi3d, or "auto", for "orbit", "refiner" and "depth"; for the
        stages also the small model in the package.
    """

    choices: Choices
    dtype: torch.dtype | None = None
    _loaded: dict[str, VideoModel] = field(default_factory=dict, repr=False)

    def require(self, *stages: Stage) -> None:
        """Raise a ValueError that tells of all checkpoints that are missing, not one."""
        for stage in stages:
            _check_there(self.choices[stage])
        find_stages(stages, _given(self.choices), folder_paths.get_folder_paths(FOLDER))

    def stage(self, stage: Stage) -> VideoModel:
        """The networks of a stage, in main memory; read when they are first asked for."""
        if stage not in self._loaded:
            from ..hi3d_core.video_model import preferred_dtype
            from ..hi3d_core.weights.load import load_video_model

            path = checkpoint(stage, self.choices)
            if is_bundled(path) and not self._loaded:
                _log.warning("%s", WHAT_THE_SMALL_MODEL_IS)
            chosen = stage == "refiner" and self.choices["depth"] != AUTO
            self._loaded[stage] = load_video_model(
                path,
                stage,
                # Left open, what the checkpoint doesn't hold is looked for beside it.
                depth=checkpoint("depth", self.choices) if chosen else None,
                dtype=self.dtype or preferred_dtype(device()),
            )
        return self._loaded[stage]


def device() -> torch.device:
    """Where networks work."""
    return comfy.model_management.get_torch_device()


def splat_device() -> torch.device:
    """Where splats are fitted: the host's device if gsplat can draw there, else the CPU."""
    from ..hi3d_core.splat.rasterize import has_cuda_kernels

    return device() if has_cuda_kernels(device()) else torch.device("cpu")


def make_room(model: VideoModel, size: int) -> None:
    """Have the host clear its device for frames of `size` pixels a side."""
    largest = max(
        sum(each.numel() * each.element_size() for each in network.parameters())
        for network in (model.unet, model.vae, model.image_encoder)
    )
    side = size // model.pixels_per_latent
    width = model.unet.settings.block_channels[0]
    bytes_each = next(model.unet.parameters()).element_size()
    activations = 2 * model.frames * side * side * width * _ACTIVATIONS * bytes_each
    comfy.model_management.free_memory(largest + activations, device())
