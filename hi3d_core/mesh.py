"""From a raw extracted surface to a clean one: parts, budget, orientation, measures.

All functions are pure and work on `Mesh`; those that change the surface drop texture coordinates
and colours. Letters: N vertices, M faces.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .bvh import TriangleTree
from .datatypes import Mesh
from .manifold import is_closed, make_manifold, merge_positions, part_touching
from .simplify import simplify
from .winding_number import winding_numbers

__all__ = [
    "finish_mesh",
    "is_watertight",
    "keep_large_components",
    "measure_area",
    "measure_volume",
    "orient_outward",
    "simplify",
]

_log = logging.getLogger(__name__)

FACE_BUDGET = 50_000
_PROBES = 101  # points of a part that are asked whether they lie inside another


def finish_mesh(raw: Mesh, face_budget: int = FACE_BUDGET) -> Mesh:
    """Turn an extracted surface into a closed mesh that is worth a texture.

    Crumbs and shells inside others are removed, touching parts are cut apart and holes closed,
    normals face outward, and edges are collapsed to at most `face_budget` faces.

    Returns a watertight mesh (see `is_watertight`) without texture. Raises ValueError if `raw`
    has no face or encloses nothing.
    """
    if len(raw.faces) == 0:
        raise ValueError(
            "the surface is empty: nothing was reconstructed. Check that the masks cover the "
            "object and that the cameras (elevation, field of view) fit the pictures"
        )
    mesh = make_manifold(raw)
    if len(mesh.faces):
        mesh = keep_large_components(orient_outward(mesh))
    if len(mesh.faces) == 0 or measure_volume(mesh) <= 0:
        raise ValueError(
            "the surface encloses nothing (only flat or cancelling faces): check that the masks "
            "of the views agree on where the object is"
        )
    mesh = part_touching(simplify(mesh, face_budget))
    if len(mesh.faces) > face_budget:
        _log.warning(
            "%d faces are left, the budget was %d: the shape has too many holes for fewer",
            len(mesh.faces),
            face_budget,
        )
    return mesh


def keep_large_components(mesh: Mesh, min_area_share: float = 0.005) -> Mesh:
    """Keep the parts that matter: no floating crumbs, and nothing that lies wholly inside a larger
    part, which no one can see.

    mesh: closed, each part with outward normals (`orient_outward`).
    min_area_share: parts with less than this share of the largest part's area are dropped.
    """
    labels = _component_labels(mesh)
    corners = _corners(mesh)
    areas = np.bincount(labels, weights=_areas(corners))
    if len(areas) == 0:
        return mesh
    is_kept = areas >= min_area_share * areas.max()
    if is_kept.sum() > 1:
        is_kept &= ~_are_enclosed(mesh, labels, is_kept)
    return _select_faces(mesh, is_kept[labels])


def _are_enclosed(mesh: Mesh, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """(P,) which of the candidate parts lie inside another one of them."""
    corners = _corners(mesh)
    normals = _crosses(corners)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    # A hair outside its own surface a part does not wind around a probe; others around it do.
    outside = corners.mean(axis=1) + 1e-5 * np.ptp(corners, axis=(0, 1)).max() * normals
    tree = TriangleTree(corners[candidates[labels]])
    result = np.zeros(len(candidates), dtype=bool)
    for part in np.flatnonzero(candidates):
        probes = outside[labels == part]
        probes = probes[:: max(1, len(probes) // _PROBES)]
        result[part] = np.median(winding_numbers(tree, probes)) > 0.5
    return result


def orient_outward(mesh: Mesh) -> Mesh:
    """Turn each closed part so that its normals face outward (it encloses a positive volume).

    Within a part the faces must already agree. Everything but the faces' order is kept.
    """
    labels = _component_labels(mesh)
    corners = _corners(mesh)
    # About each part's own middle, so that rounding does not decide for a small far part.
    count = np.maximum(np.bincount(labels), 1)
    middles = np.stack(
        [np.bincount(labels, weights=corners[:, 0, k]) / count for k in range(3)], axis=1
    )
    volumes = np.bincount(labels, weights=_signed_volumes(corners - middles[labels][:, None]))
    inverted = torch.from_numpy(volumes[labels] < 0).to(mesh.faces.device)
    faces = torch.where(inverted[:, None], mesh.faces.flip(1), mesh.faces)
    return Mesh(mesh.vertices, faces, mesh.uvs, mesh.texture, mesh.vertex_colors)


def is_watertight(mesh: Mesh) -> bool:
    """Whether, with vertices at equal positions merged, every edge has exactly two faces that
    pass it in opposite directions. False for a mesh without faces."""
    return is_closed(merge_positions(mesh)[1])


def measure_area(mesh: Mesh) -> float:
    """The surface's area in world units squared."""
    return float(_areas(_corners(mesh)).sum())


def measure_volume(mesh: Mesh) -> float:
    """The enclosed volume in world units cubed; negative if normals face inward."""
    return float(_signed_volumes(_corners(mesh)).sum())


def _corners(mesh: Mesh) -> np.ndarray:
    vertices = mesh.vertices.detach().cpu().double().numpy()
    return vertices[mesh.faces.cpu().numpy()].reshape(-1, 3, 3)


def _crosses(corners: np.ndarray) -> np.ndarray:
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _areas(corners: np.ndarray) -> np.ndarray:
    return np.linalg.norm(_crosses(corners), axis=1) / 2


def _signed_volumes(corners: np.ndarray) -> np.ndarray:
    return (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum(axis=1) / 6


def _component_labels(mesh: Mesh) -> np.ndarray:
    """(M,) the part of each face: faces that share a vertex belong together."""
    faces = mesh.faces.cpu().numpy()
    count = len(mesh.vertices)
    rows, columns = faces[:, [0, 1]].reshape(-1), faces[:, [1, 2]].reshape(-1)
    graph = coo_matrix((np.ones(len(rows), bool), (rows, columns)), (count, count))
    _, label = connected_components(graph, directed=False)
    _, part = np.unique(label[faces[:, 0]], return_inverse=True)
    return part.reshape(-1)


def _select_faces(mesh: Mesh, keep: np.ndarray) -> Mesh:
    faces = mesh.faces.cpu().numpy()[keep]
    is_used = np.zeros(len(mesh.vertices), dtype=bool)
    is_used[faces] = True
    index = np.cumsum(is_used) - 1
    return Mesh(
        mesh.vertices[torch.from_numpy(is_used).to(mesh.vertices.device)],
        torch.from_numpy(index[faces]).to(mesh.faces),
    )
