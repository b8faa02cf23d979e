"""Where a level is fitted: by numba's kernels on the CPU, or by Warp's on CUDA.

Both take the same steps from the same numbers. Numba's are the reference, and the same to the
last bit for a seed and a thread count; on CUDA the order in which gradients add up changes from
run to run, and the last digits with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from .. import optional
from .field import Band, Field, FloatArray, find_band, redistance, unseen_below
from .optimize import step_band
from .priors import DEPTH_HUBER, DEPTH_LIMIT, accumulate_prior_gradients
from .rays import Rays
from .render import COLUMNS, accumulate_gradients

if TYPE_CHECKING:
    from .fit import SurfaceConfig

_log = logging.getLogger(__name__)

PriorBatch = tuple[FloatArray, FloatArray, FloatArray, FloatArray]
"""Points (R, 3), normals (R, 3), depth weights (R,), normal weights (R,); see `PriorPoints`."""


class Backend(Protocol):
    """A field while it is fitted to rays, with its band, gradients and the optimizer's moments."""

    def refresh(self, alive: Callable[[], None]) -> None:
        """Find distances and the band anew; nodes that stay in it keep their moments.

        alive: called between parts; it may raise to cancel.
        """

    def add_rays(self, chosen: NDArray[np.int64], sharpness: float) -> float:
        """Add the gradients of some rays, given by their numbers; returns their loss."""

    def add_priors(self, batch: PriorBatch) -> float:
        """Add the gradients of estimated depths and normals; returns their loss."""

    def step(self, number: int, rays: int, decay: float) -> None:
        """Move the band by the gradients since the last step. number: from 1. rays: in a batch.

        decay: of the steps' size.
        """

    def store(self) -> None:
        """Bring the field that was given up to date."""

    def finish(self, alive: Callable[[], None]) -> None:
        """Find distances anew and bring the field that was given up to date."""


def begin_fit(device: torch.device, field: Field, rays: Rays, config: SurfaceConfig) -> Backend:
    """Get ready to fit a field to rays, on CUDA for a device that `can_fit_on`.

    Raises ValueError for a field without a surface.
    """
    if device.type == "cpu":
        return NumbaBackend(field, rays, config)
    from .warp_backend import WarpBackend

    # Warp has an allocator of its own, which gets nothing of what torch holds in reserve.
    torch.cuda.empty_cache()
    return WarpBackend(field, rays, config, str(device))


def can_fit_on(device: torch.device) -> bool:
    """Whether surfaces are fitted on this device by Warp; if not, they are on the CPU."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    if not optional.is_available("warp"):
        _say_once(
            "warp-lang is not installed: surfaces are fitted on the CPU, though there is CUDA "
            f"(pip install {optional.EXTRAS['warp'].install})"
        )
        return False
    from .warp_kernels import wp

    if not wp.is_cuda_available():
        _say_once(
            "surfaces are fitted on the CPU, as the installed warp-lang can't use this GPU or its "
            "driver (update the driver, or install a warp-lang for an older CUDA)"
        )
        return False
    return True


_said: set[str] = set()


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        _log.warning(message)


def without_surface() -> ValueError:
    """What to raise when nothing is left to fit."""
    return ValueError(
        "the surface vanished: the masks and cameras do not describe one object "
        "(check the elevation, the order of the frames and the masks)"
    )


class NumbaBackend:
    """On the CPU; the field that is given is the one that is fitted."""

    def __init__(self, field: Field, rays: Rays, config: SurfaceConfig) -> None:
        self._field, self._rays, self._config = field, rays, config
        self._state = _BandState.start(field, config.band)

    def refresh(self, alive: Callable[[], None]) -> None:
        self._field.sdf = redistance(self._field.sdf, alive)
        alive()
        self._state = self._state.refreshed(self._field, self._config.band)

    def add_rays(self, chosen: NDArray[np.int64], sharpness: float) -> float:
        return accumulate_gradients(
            *self._rays.pick(chosen),
            self._field.sdf,
            self._field.colors,
            self._state.band.slot,
            sharpness,
            self._config.mask_weight,
            self._config.huber,
            self._state.gradients,
            np.empty((len(chosen), 4), np.float32),
        )

    def add_priors(self, batch: PriorBatch) -> float:
        return accumulate_prior_gradients(
            *batch,
            self._field.sdf,
            self._state.band.slot,
            self._config.depth_weight,
            self._config.normal_weight,
            DEPTH_LIMIT,
            DEPTH_HUBER,
            self._state.gradients,
        )

    def step(self, number: int, rays: int, decay: float) -> None:
        field, state, config = self._field, self._state, self._config
        # The data term is a sum over rays: scale the band's means to match.
        balance = rays / len(state.band.nodes)
        step_band(
            state.gradients,
            state.band.nodes,
            state.band.hidden,
            state.band.slot,
            field.sdf,
            field.colors,
            field.seen,
            state.first_moment,
            state.second_moment,
            number,
            config.sdf_rate * decay,
            config.color_rate * decay,
            config.eikonal_weight * balance,
            config.smoothness_weight * balance,
            config.curvature_rate,
            config.spreading,
        )

    def store(self) -> None:
        pass

    def finish(self, alive: Callable[[], None]) -> None:
        self._field.sdf = redistance(self._field.sdf, alive)


@dataclass
class _BandState:
    """The band with its optimizer's moments and one gradient buffer a thread."""

    band: Band
    gradients: FloatArray
    first_moment: FloatArray
    second_moment: FloatArray

    @staticmethod
    def start(field: Field, half_width: float) -> _BandState:
        band = find_band(field, half_width, unseen_below(field))
        if len(band.nodes) == 0:
            raise without_surface()
        chunks = min(numba.get_num_threads(), 8)
        moments = np.zeros((len(band.nodes), 4), np.float32)
        return _BandState(
            band,
            np.zeros((chunks, len(band.nodes), COLUMNS), np.float32),
            moments,
            moments.copy(),
        )

    def refreshed(self, field: Field, half_width: float) -> _BandState:
        """The band where the surface is now; nodes that stay keep their moments."""
        new = _BandState.start(field, half_width)
        i, j, k = new.band.nodes.T
        old = self.band.slot[i, j, k]
        kept = old >= 0
        new.first_moment[kept] = self.first_moment[old[kept]]
        new.second_moment[kept] = self.second_moment[old[kept]]
        return new
