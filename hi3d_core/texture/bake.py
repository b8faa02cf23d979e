"""Bake a texture, or colours for the vertices, from posed views of a mesh."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..datatypes import Mesh, OnStep, OrbitViews
from ..normals import vertex_normals
from .fill import fill_around_charts, spread_colors
from .levelling import solve_gains
from .texels import find_texels, surface_normals, surface_points
from .votes import Witness, blend_votes, collect_votes, prepare_witness

_log = logging.getLogger(__name__)

_CHUNK = 1 << 18  # texels blended at a time, which bounds the memory
_LEVELLING_SAMPLES = 40_000  # surface points at which the views' colours are compared
_SPREADING_SAMPLES = 600_000  # surface points that the colours of unseen parts come from


@dataclass(frozen=True)
class TextureConfig:
    """Settings of the texture bake."""

    size: int = 2048  # texels along each side of the texture
    feather_pixels: float = 4.0  # how far from an edge a picture's pixel is fully trusted
    level: bool = True  # even out exposure and tint between the views
    outlier_spread: float = 0.1  # distance in colour at which a dissenting vote counts a quarter

    def __post_init__(self) -> None:
        if not 64 <= self.size <= 16384:
            raise ValueError(f"texture size is {self.size}, expected 64 to 16384 texels")
        if self.feather_pixels < 1 or self.outlier_spread <= 0:
            raise ValueError("feather_pixels must be at least 1 and outlier_spread positive")


@dataclass(frozen=True, eq=False)
class BakedTexture:
    """A textured mesh, and how it came about.

    covered: (S, S) bool texels that stand for a place on the surface (with a rim of one texel).
    certainties: (S, S) float in [0, 1]: 1 where a view surely saw that place, 0 where none did
    and the colour is a guess from around it.
    gains: (V, 3) what the views' colours were multiplied with.
    """

    mesh: Mesh
    covered: Tensor
    certainties: Tensor
    gains: Tensor


def bake_texture(
    mesh: Mesh,
    views: OrbitViews,
    config: TextureConfig | None = None,
    *,
    on_step: OnStep | None = None,
) -> Mesh:
    """Texture a mesh from views: `bake` without the diagnostics."""
    return bake(mesh, views, config, on_step=on_step).mesh


def bake(
    mesh: Mesh,
    views: OrbitViews,
    config: TextureConfig | None = None,
    *,
    on_step: OnStep | None = None,
) -> BakedTexture:
    """Texture a mesh from views of it.

    Each texel takes a blend of what the views show at its place on the surface (`votes.py`), after
    their exposures are levelled (`levelling.py`). Where none shows it, or only next to a
    silhouette, colours spread over the surface from what is seen (`fill.py`).

    mesh: with uvs (`unwrap`), in the cameras' world, normals outward.
    on_step: called with (done, total) as texels are blended; may raise to cancel.

    The result's texture is (size, size, 3) float32 in [0, 1], without gaps between charts.
    Raises ValueError for a mesh without faces or uvs.
    """
    config = config or TextureConfig()
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no faces: there is nothing to texture")
    if mesh.uvs is None:
        raise ValueError("the mesh has no texture coordinates: unwrap it first")
    size = config.size
    uvs = mesh.uvs.detach().cpu().double().numpy()
    faces = mesh.faces.cpu().numpy()
    vertices = mesh.vertices.detach().cpu().double().numpy()
    normals = vertex_normals(mesh.vertices, mesh.faces).cpu().double().numpy()
    texels, owners = find_texels(uvs, faces, size)

    def place(chosen: slice) -> tuple[np.ndarray, np.ndarray]:
        """Points and normals of some of the texels."""
        some = (texels[chosen], owners[chosen], size, uvs)
        return surface_points(*some, vertices, faces), surface_normals(*some, normals, faces)

    witness = prepare_witness(mesh, views, config.feather_pixels)
    if config.level:
        witness = _levelled(witness, *place(slice(None, None, _stride(texels, _LEVELLING_SAMPLES))))
    colors = np.empty((len(texels), 3), dtype=np.float32)
    certainties = np.empty(len(texels), dtype=np.float32)
    starts = range(0, len(texels), _CHUNK)
    for number, start in enumerate(starts):
        chunk = slice(start, start + _CHUNK)
        colors[chunk], certainties[chunk] = _blend(witness, *place(chunk), config.outlier_spread)
        if on_step is not None:
            on_step(number + 1, len(starts))
    certainties = _eased(certainties)
    sample = slice(None, None, _stride(texels, _SPREADING_SAMPLES))
    around = spread_colors(*place(sample), colors[sample], certainties[sample])
    for start in starts:
        chunk = slice(start, start + _CHUNK)
        points, facing = place(chunk)
        unsure = np.flatnonzero(certainties[chunk] < 1)
        share = certainties[chunk][unsure, None]
        guess = around.at(points[unsure], facing[unsure])
        colors[chunk][unsure] = share * colors[chunk][unsure] + (1 - share) * guess
    texture = np.zeros((size, size, 3), dtype=np.float32)
    texture.reshape(-1, 3)[texels] = np.clip(colors, 0, 1)
    covered = np.zeros((size, size), dtype=bool)
    covered.reshape(-1)[texels] = True
    fill_around_charts(texture, covered)
    certainty_map = np.zeros((size, size), dtype=np.float32)
    certainty_map.reshape(-1)[texels] = certainties
    device = mesh.vertices.device
    return BakedTexture(
        replace(mesh, texture=torch.from_numpy(texture).to(device), vertex_colors=None),
        torch.from_numpy(covered).to(device),
        torch.from_numpy(certainty_map).to(device),
        torch.from_numpy(witness.gains).to(device),
    )


def project_vertex_colors(
    mesh: Mesh, views: OrbitViews, config: TextureConfig | None = None
) -> Mesh:
    """Colour a mesh's vertices from views of it, by the same votes as `bake_texture`.

    For meshes without texture coordinates; as fine as the vertices are dense. The config's size
    is not used. Returns the mesh with `vertex_colors` and without texture. Raises ValueError for
    a mesh without faces.
    """
    config = config or TextureConfig()
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no faces: there is nothing to colour")
    points = np.ascontiguousarray(mesh.vertices.detach().cpu().float().numpy())
    normals = vertex_normals(mesh.vertices, mesh.faces).cpu().float().numpy()
    witness = prepare_witness(mesh, views, config.feather_pixels)
    if config.level:
        every = _stride(points, _LEVELLING_SAMPLES)
        witness = _levelled(witness, points[::every], normals[::every])
    colors, certainties = _blend(witness, points, normals, config.outlier_spread)
    certainties = _eased(certainties)
    guess = spread_colors(points, normals, colors, certainties).at(points, normals)
    share = certainties[:, None]
    blended = np.clip(share * colors + (1 - share) * guess, 0, 1).astype(np.float32)
    vertex_colors = torch.from_numpy(blended).to(mesh.vertices.device)
    return replace(mesh, texture=None, vertex_colors=vertex_colors)


def _levelled(witness: Witness, points: np.ndarray, normals: np.ndarray) -> Witness:
    votes = collect_votes(points, normals, *_arrays(witness))
    gains = solve_gains(votes)
    _log.debug("gains between %.3f and %.3f", gains.min(), gains.max())
    return replace(witness, gains=gains)


def _blend(
    witness: Witness, points: np.ndarray, normals: np.ndarray, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    arrays = (points, normals, *_arrays(witness), spread)
    return blend_votes(*arrays)


def _arrays(witness: Witness) -> tuple[np.ndarray, ...]:
    return (
        witness.images,
        witness.alphas,
        witness.matrices,
        witness.positions,
        witness.depths,
        witness.trust,
        witness.gains,
    )


def _eased(certainties: np.ndarray) -> np.ndarray:
    """From how sure the best vote is to how much of it to show: edge votes alone show nothing."""
    share = np.clip((certainties - 0.08) / 0.3, 0, 1)
    return share * share * (3 - 2 * share)


def _stride(rows: np.ndarray, wanted: int) -> int:
    return max(1, len(rows) // wanted)
