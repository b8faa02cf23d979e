"""Inputs that several nodes have, so that they read alike everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io
from torch import Tensor

from ..hi3d_core.diffusion.sampling import SOLVERS
from ..hi3d_core.model_defaults import SampleSettings
from .comfy_models import DepthSocket, ModelSocket
from .comfy_types import CamerasSocket

if TYPE_CHECKING:
    from ..hi3d_core.video_model import VideoModel

QUALITIES_BY_NAME = ["preview", "standard", "high"]
"""Of `pipeline.QUALITIES`: that brings in the whole library, which waits until a node runs."""

MODELS_OWN = "auto"

_LARGEST_SEED = 2**64 - 1


def check_choice(name: str, value: str, options: list[str]) -> None:
    """Older hosts hand over any value of a list. Raises ValueError for one that isn't there."""
    if value not in options:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(options)}")


def picture_inputs() -> list[Any]:
    """The models, and the one picture that they start from."""
    return [
        ModelSocket.Input("model", tooltip="From Hi3D Loader."),
        io.Image.Input("image", tooltip="One picture of the object."),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="White on the object. Without it a plain background is keyed out.",
        ),
    ]


def view_inputs() -> list[Any]:
    """Posed views on three wires: image, cameras, mask."""
    return [
        io.Image.Input("image", tooltip="Views of one object, best 8 or more around it."),
        CamerasSocket.Input("cameras", tooltip="Where each view was taken from."),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="White on the object, one for each view. Without it a plain background is "
            "keyed out.",
        ),
    ]


def reference_inputs() -> list[Any]:
    """The user's own picture of the first view."""
    return [
        io.Image.Input(
            "reference_image",
            optional=True,
            tooltip="Your own picture of the first view, at any size: its pixels win where it sees "
            "the surface well.",
        ),
        io.Mask.Input("reference_mask", optional=True, tooltip="White on the reference's object."),
    ]


def depth_input(tooltip: str) -> Any:
    """Estimated depth of views, of our kind or as pictures."""
    return io.MultiType.Input(
        "depth",
        types=[DepthSocket, io.Image],
        optional=True,
        tooltip="From Hi3D Depth Estimator, or another estimator's pictures (near is white). "
        + tooltip,
    )


def inverse_depths(depth: Tensor) -> Tensor:
    """(V, H, W) relative inverse depth of what is on a depth input."""
    from ..hi3d_core.depth import to_inverse_depth

    maps = depth.detach().clone().cpu().float()
    return to_inverse_depth(maps.mean(dim=-1) if maps.ndim == 4 else maps, "near_is_large")


def elevation_input(tooltip: str) -> Any:
    """Degrees, within what the orbit models know."""
    return io.Float.Input("elevation", default=0.0, min=-10.0, max=40.0, step=0.5, tooltip=tooltip)


def size_input(largest: int, whose: str, trained: int, note: str = "") -> Any:
    """Side of a stage's frames in pixels, 0 being left to the model."""
    return io.Int.Input(
        "size",
        default=0,
        min=0,
        max=largest,
        step=64,
        tooltip=f"Side of {whose} frames in pixels; 0: what the model was trained at, for the "
        f"authors' weights {trained}.{note}",
    )


def sample_settings(
    model: VideoModel, size: int, steps: int = 0, solver: str = MODELS_OWN, guidance: float = 0
) -> SampleSettings:
    """How a stage is sampled, the model saying what is left to it."""
    first, _ = model.defaults.guidance
    return model.defaults.choose(
        size or None,
        None if solver == MODELS_OWN else solver,
        steps or None,
        (first, guidance) if guidance else None,
    )


def solver_inputs() -> list[Any]:
    """Seed, steps and solver of both diffusion stages."""
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=_LARGEST_SEED,
            control_after_generate=True,
            tooltip="Noise. The same seed gives the same frames on one machine.",
        ),
        io.Int.Input(
            "steps",
            default=0,
            min=0,
            max=200,
            tooltip="Solver steps; 0: the model's, or the solver's own (25; fast: 12). Time grows "
            "with them.",
        ),
        io.Combo.Input(
            "solver",
            options=[MODELS_OWN, *SOLVERS],
            default=MODELS_OWN,
            tooltip="auto: what the model says. euler: as the authors'. fast: less than half the "
            "time. heun: twice the time a step. dpmpp_2m: as euler, second order.",
        ),
    ]
