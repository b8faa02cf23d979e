# mypy: disable-error-code="no-untyped-call"
"""A level's fit on CUDA, by Warp. All of it stays there from the first step to the last.

Over the bus go the field and the rays as a fit begins, the numbers of the rays of each batch, and
the field again as it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .backend import PriorBatch, without_surface
from .field import UNSEEN_SHARE, Field
from .priors import DEPTH_HUBER, DEPTH_LIMIT
from .rays import Rays
from .render import COLUMNS
from .warp_distance import band_nodes, find_hidden, keep_moments, mean_seen, redistance
from .warp_kernels import (
    RayArrays,
    add_prior_gradients,
    add_ray_gradients,
    move_nodes,
    spread_steps,
    step_nodes,
    wp,
)

if TYPE_CHECKING:
    from .fit import SurfaceConfig


class WarpBackend:
    """A copy of a field on a device that Warp knows by this name: "cuda:0", or "cpu" in tests."""

    def __init__(self, field: Field, rays: Rays, config: SurfaceConfig, device: str) -> None:
        self._field, self._config, self._device = field, config, device
        self._rays = rays_on(rays, device)
        self._sdf = self._put(field.sdf, wp.float32)
        self._colors = self._put(field.colors, wp.vec3)
        self._seen = self._put(field.seen, wp.float32)
        self._find_band()

    def _put(self, values: NDArray[Any], dtype: Any) -> Any:
        return wp.array(np.ascontiguousarray(values), dtype=dtype, device=self._device)

    def _find_band(self) -> None:
        self._nodes, self._slot = band_nodes(self._sdf, self._config.band)
        count = len(self._nodes)
        if count == 0:
            raise without_surface()
        mean = mean_seen(self._sdf, self._seen)
        threshold = -1.0 if mean is None else UNSEEN_SHARE * mean
        device = self._device
        self._hidden = wp.empty(count, dtype=wp.int32, device=device)
        inputs = [self._sdf, self._seen, self._nodes, threshold, self._hidden]
        wp.launch(find_hidden, count, inputs, device=device)
        self._gradients = wp.zeros((count, COLUMNS), dtype=wp.float32, device=device)
        self._first_moment = wp.zeros(count, dtype=wp.vec4, device=device)
        self._second_moment = wp.zeros(count, dtype=wp.vec4, device=device)
        self._steps = wp.empty(count, dtype=wp.float32, device=device)
        self._spread = wp.empty(count, dtype=wp.float32, device=device)

    def refresh(self, alive: Callable[[], None]) -> None:
        redistance(self._sdf)
        alive()
        before = [self._slot, self._first_moment, self._second_moment]
        self._find_band()
        inputs = [self._nodes, *before, self._first_moment, self._second_moment]
        wp.launch(keep_moments, len(self._nodes), inputs, device=self._device)

    def add_rays(self, chosen: NDArray[np.int64], sharpness: float) -> float:
        return self.drawn(chosen, sharpness)[0]

    def drawn(self, chosen: NDArray[np.int64], sharpness: float) -> tuple[float, Any]:
        """`add_rays`, with the colours and alphas (R,) that the rays showed, on the device."""
        count = len(chosen)
        losses = wp.empty(count, dtype=wp.float64, device=self._device)
        rendered = wp.empty(count, dtype=wp.vec4, device=self._device)
        inputs = [
            self._rays,
            self._put(chosen.astype(np.int32), wp.int32),
            self._sdf,
            self._colors,
            self._slot,
            sharpness,
            self._config.mask_weight,
            self._config.huber,
            self._gradients,
            losses,
            rendered,
        ]
        wp.launch(add_ray_gradients, count, inputs, device=self._device)
        return float(wp.utils.array_sum(losses)), rendered

    def add_priors(self, batch: PriorBatch) -> float:
        points, normals, depth_weights, normal_weights = batch
        losses = wp.empty(len(points), dtype=wp.float64, device=self._device)
        inputs = [
            self._put(points, wp.vec3),
            self._put(normals, wp.vec3),
            self._put(depth_weights, wp.float32),
            self._put(normal_weights, wp.float32),
            self._sdf,
            self._slot,
            self._config.depth_weight,
            self._config.normal_weight,
            DEPTH_LIMIT,
            DEPTH_HUBER,
            self._gradients,
            losses,
        ]
        wp.launch(add_prior_gradients, len(points), inputs, device=self._device)
        return float(wp.utils.array_sum(losses))

    def step(self, number: int, rays: int, decay: float) -> None:
        config, count = self._config, len(self._nodes)
        balance = rays / count
        inputs = [
            self._gradients,
            self._nodes,
            self._hidden,
            self._sdf,
            self._colors,
            self._seen,
            self._first_moment,
            self._second_moment,
            1 / (1 - 0.9**number),
            1 / (1 - 0.95**number),
            config.sdf_rate * decay,
            config.color_rate * decay,
            config.eikonal_weight * balance,
            config.smoothness_weight * balance,
            config.curvature_rate,
            self._steps,
        ]
        wp.launch(step_nodes, count, inputs, device=self._device)
        for _ in range(config.spreading):
            inputs = [self._nodes, self._hidden, self._slot, self._steps, self._spread]
            wp.launch(spread_steps, count, inputs, device=self._device)
            self._steps, self._spread = self._spread, self._steps
        inputs = [self._nodes, self._steps, self._sdf]
        wp.launch(move_nodes, count, inputs, device=self._device)

    def store(self) -> None:
        # On the CPU `numpy` shares memory with the array.
        self._field.sdf = self._sdf.numpy().copy()
        self._field.colors = self._colors.numpy().copy()
        self._field.seen = self._seen.numpy().copy()

    def finish(self, alive: Callable[[], None]) -> None:
        redistance(self._sdf)
        alive()
        self.store()


def rays_on(rays: Rays, device: str) -> Any:
    """Rays in node coordinates as the kernels take them."""
    arrays = RayArrays()
    for name, dtype in (
        ("origins", wp.vec3),
        ("rotations", wp.mat33),
        ("focals", wp.vec4),
        ("view", wp.int32),
        ("column", wp.float32),
        ("row", wp.float32),
        ("colors", wp.vec3),
        ("alphas", wp.float32),
        ("trust", wp.float32),
    ):
        values = np.ascontiguousarray(getattr(rays, name))
        setattr(arrays, name, wp.array(values, dtype=dtype, device=device))
    return arrays
