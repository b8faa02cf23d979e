"""The four types that flow between stages. Read this first.

    Cameras      where the views were taken from                      (cameras.py)
    OrbitViews   pictures with alpha, and optional depth, and cameras
    Gaussians    a 3D Gaussian splat, always activated
    Mesh         triangles, with an optional texture or vertex colours

Letters used all over the library: V views, H height, W width, N points or vertices, M faces,
K spherical-harmonics terms.

World frame: right-handed, Y up, front view from +Z. Camera frame: OpenCV (x right, y down,
z forward). All types are immutable and checked once, when made; a stage returns new ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .cameras import Cameras

__all__ = [
    "Cameras",
    "Gaussians",
    "Mesh",
    "OnPreview",
    "OnStage",
    "OnStep",
    "OrbitViews",
    "silent_stage",
]

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in total). It may raise to cancel: stages let that pass."""

OnPreview = Callable[[Tensor], None]
"""Called now and then with pictures (F, h, w, 3) in [0, 1] of the work so far."""

OnStage = Callable[[str], OnStep]
"""Called with a stage's name as it begins; the result is told of its steps."""


def silent_stage(name: str) -> OnStep:
    """The `OnStage` of those who don't want to know."""
    return lambda done, total: None


@dataclass(frozen=True, eq=False)
class OrbitViews:
    """Pictures of one object from known cameras.

    images: (V, H, W, 3) float in [0, 1]: the object's colours over a white background.
    alphas: (V, H, W) float in [0, 1]: how much of a pixel the object covers.
    cameras: V cameras of size W x H.
    depths: (V, H, W) z-depth in world units, 0 where unknown, or None.

    Raises ValueError for shapes that disagree, values out of range or not finite.
    """

    images: Tensor
    alphas: Tensor
    cameras: Cameras
    depths: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise ValueError(f"images is {tuple(self.images.shape)}, expected (V, H, W, 3)")
        views, height, width = self.images.shape[:3]
        if views == 0:
            raise ValueError("images holds no views: give at least one picture")
        if self.alphas.shape != (views, height, width):
            raise ValueError(
                f"alphas is {tuple(self.alphas.shape)}, expected {(views, height, width)}: "
                "one mask for each picture, of the same size"
            )
        if len(self.cameras) != views:
            raise ValueError(
                f"there are {views} pictures but {len(self.cameras)} cameras: give one camera "
                "for each picture"
            )
        if (self.cameras.width, self.cameras.height) != (width, height):
            raise ValueError(
                f"the cameras are for {self.cameras.width} x {self.cameras.height} pictures, "
                f"the pictures are {width} x {height}: use Cameras.resized"
            )
        _check_range(self.images, "images")
        _check_range(self.alphas, "alphas")
        if self.depths is not None:
            if self.depths.shape != (views, height, width):
                raise ValueError(
                    f"depths is {tuple(self.depths.shape)}, expected {(views, height, width)}"
                )
            if not torch.isfinite(self.depths).all() or float(self.depths.min()) < 0:
                raise ValueError("depths must be finite and not negative, 0 where unknown")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | list[int] | Tensor) -> OrbitViews:
        """Pick several views: a slice, a list of indices or a boolean mask."""
        depths = None if self.depths is None else self.depths[index]
        return OrbitViews(self.images[index], self.alphas[index], self.cameras[index], depths)

    def to(self, device: torch.device | str) -> OrbitViews:
        depths = None if self.depths is None else self.depths.to(device)
        return OrbitViews(
            self.images.to(device), self.alphas.to(device), self.cameras.to(device), depths
        )


@dataclass(frozen=True, eq=False)
class Gaussians:
    """A 3D Gaussian splat, in the units that are drawn: no logits, no log-scales.

    means: (N, 3) in the world. scales: (N, 3) standard deviations along the axes, world units,
    positive. quaternions: (N, 4) unit, w first. opacities: (N,) in [0, 1].
    sh: (N, K, 3) spherical-harmonics coefficients, K = (degree + 1) squared; the colour of
    degree 0 is 0.5 + 0.28209479 * sh[:, 0].

    Raises ValueError for shapes that disagree or values out of range or not finite.
    """

    means: Tensor
    scales: Tensor
    quaternions: Tensor
    opacities: Tensor
    sh: Tensor

    def __post_init__(self) -> None:
        count = len(self.means)
        expected = {"means": (3,), "scales": (3,), "quaternions": (4,), "opacities": ()}
        for name, shape in expected.items():
            value: Tensor = getattr(self, name)
            if value.shape != (count, *shape):
                raise ValueError(f"{name} is {tuple(value.shape)}, expected {(count, *shape)}")
            _check_finite(value, name)
        if self.sh.ndim != 3 or self.sh.shape[0] != count or self.sh.shape[2] != 3:
            raise ValueError(f"sh is {tuple(self.sh.shape)}, expected ({count}, K, 3)")
        if self.sh.shape[1] not in (1, 4, 9, 16):
            raise ValueError(
                f"sh has {self.sh.shape[1]} terms, expected 1, 4, 9 or 16 (degree 0 to 3)"
            )
        _check_finite(self.sh, "sh")
        if count == 0:
            return
        if float(self.scales.min()) <= 0:
            raise ValueError("scales must be positive: these are standard deviations, not logs")
        _check_range(self.opacities, "opacities")
        if float((self.quaternions.norm(dim=1) - 1).abs().max()) > 1e-3:
            raise ValueError("quaternions must have unit length: divide them by their norm")

    def __len__(self) -> int:
        return len(self.means)

    def to(self, device: torch.device | str) -> Gaussians:
        return Gaussians(
            self.means.to(device),
            self.scales.to(device),
            self.quaternions.to(device),
            self.opacities.to(device),
            self.sh.to(device),
        )

    def from_frame(self, center: Tensor, scale: float) -> Gaussians:
        """Back to the world that `Cameras.in_frame(center, scale)` left."""
        return replace(
            self, means=self.means * scale + center.to(self.means), scales=self.scales * scale
        )


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles in the world frame.

    vertices: (N, 3) float. faces: (M, 3) int64, counter-clockwise seen from outside.
    uvs: (N, 2) in [0, 1], origin at the picture's top left as in glTF, or None.
    texture: (H, W, 3) float in [0, 1], or None; needs uvs.
    vertex_colors: (N, 3) float in [0, 1], or None.

    Raises ValueError for shapes that disagree, values not finite or faces that name no vertex.
    """

    vertices: Tensor
    faces: Tensor
    uvs: Tensor | None = None
    texture: Tensor | None = None
    vertex_colors: Tensor | None = None

    def __post_init__(self) -> None:
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3:
            raise ValueError(f"vertices is {tuple(self.vertices.shape)}, expected (N, 3)")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3 or self.faces.dtype != torch.int64:
            raise ValueError(
                f"faces is {self.faces.dtype} {tuple(self.faces.shape)}, expected int64 (M, 3)"
            )
        count = len(self.vertices)
        _check_finite(self.vertices, "vertices")
        if self.faces.numel() and not 0 <= int(self.faces.min()) <= int(self.faces.max()) < count:
            raise ValueError(
                f"faces name vertices {int(self.faces.min())} to {int(self.faces.max())}, "
                f"but the mesh has {count}"
            )
        if self.uvs is not None:
            if self.uvs.shape != (count, 2):
                raise ValueError(f"uvs is {tuple(self.uvs.shape)}, expected ({count}, 2)")
            _check_finite(self.uvs, "uvs")
        if self.texture is not None:
            if self.uvs is None:
                raise ValueError("a texture needs uvs: unwrap the mesh first")
            if self.texture.ndim != 3 or self.texture.shape[2] != 3:
                raise ValueError(f"texture is {tuple(self.texture.shape)}, expected (H, W, 3)")
            _check_range(self.texture, "texture")
        if self.vertex_colors is not None:
            if self.vertex_colors.shape != (count, 3):
                raise ValueError(
                    f"vertex_colors is {tuple(self.vertex_colors.shape)}, expected ({count}, 3)"
                )
            _check_range(self.vertex_colors, "vertex_colors")

    def to(self, device: torch.device | str) -> Mesh:
        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return Mesh(
            self.vertices.to(device),
            self.faces.to(device),
            move(self.uvs),
            move(self.texture),
            move(self.vertex_colors),
        )

    def from_frame(self, center: Tensor, scale: float) -> Mesh:
        """Back to the world that `Cameras.in_frame(center, scale)` left."""
        return replace(self, vertices=self.vertices * scale + center.to(self.vertices))


def _check_finite(tensor: Tensor, name: str) -> None:
    if not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{name} holds {bad} values that are NaN or infinite")


def _check_range(tensor: Tensor, name: str) -> None:
    if not tensor.is_floating_point():
        raise ValueError(f"{name} is {tensor.dtype}, expected floats in [0, 1]")
    if tensor.numel() == 0:
        return
    _check_finite(tensor, name)
    low, high = float(tensor.min()), float(tensor.max())
    if low < -1e-4 or high > 1 + 1e-4:
        raise ValueError(f"{name} lies in [{low:g}, {high:g}], expected [0, 1]")
