"""Move a surface to where the views show it on average.

A view's flow from the fit holds two things: the view's own error, and the fit's, which it shares
with all the views that see the same place. The fit errs because it began in a hull that the views
had carved too thin, was smoothed, and was aligned to from round to round. What the views have in
common is a displacement e of the surface in space: the least-squares solution of

    J e = D    for each view that sees a vertex, by confidence
    e_a = e_b  for neighbouring vertices, within `_REACH` of each other

where D is the view's flow at the vertex and J the derivative of its pixels by the vertex' place.

Letters: V views, N vertices, P places (vertices that share one count as one), h, w the flow's
pictures.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import map_coordinates, maximum_filter
from scipy.sparse.linalg import cg

from ..cameras import Cameras
from ..datatypes import Mesh
from ..mesh import measure_area
from ..normals import vertex_normals, weld_indices
from ..raster import pixel_matrices, rasterize_triangles
from ..surface.hull import FloatArray

DoubleArray = NDArray[np.float64]

_REACH = 0.04  # over which the displacement is smooth, as a share of the surface's size
_LEAST_CONFIDENCE = 0.05  # where a view sees the surface: flow that spread there counts too
_FACING = (-0.1, 0.2)  # cosines from which a view begins to count and counts fully
_BEHIND = 0.01  # how far behind what a camera sees a vertex may lie, as a share of the size
_STAY = 1e-3  # weight of no displacement, where no view sees anything


def settled(
    mesh: Mesh,
    cameras: Cameras,
    displacements: FloatArray,
    confidences: FloatArray,
) -> Mesh:
    """The mesh with its vertices moved by what the views have in common.

    cameras: V, of the flow's pictures. displacements: (V, h, w, 2) pixels (x, y): where each view
    shows what the mesh has at a pixel, less that pixel. confidences: (V, h, w) in [0, 1].

    The same mesh comes back if nothing is displaced.
    """
    if not displacements.any() or len(mesh.faces) == 0:
        return mesh
    positions = mesh.vertices.detach().cpu().numpy()
    place_of, count = weld_indices(positions)
    first = np.zeros(count, np.int64)
    first[place_of] = np.arange(len(positions))
    places = positions[first].astype(np.float64)
    normals = vertex_normals(mesh.vertices, mesh.faces).cpu().double().numpy()[first]
    size = float(np.ptp(places, axis=0).max())

    system, target = np.zeros((count, 3, 3)), np.zeros((count, 3))
    matrices, eyes = pixel_matrices(cameras), cameras.positions.cpu().double().numpy()
    depths = rasterize_triangles(mesh.vertices.cpu(), mesh.faces.cpu(), cameras).depths.numpy()
    for view, matrix in enumerate(matrices):
        pixels, jacobians, z = _projected(places, matrix)
        toward = eyes[view] - places
        cosines = (toward * normals).sum(axis=1) / np.linalg.norm(toward, axis=1)
        # Rims lie between pixels that see them and pixels that don't: any of the nine will do.
        farthest = maximum_filter(depths[view], 3)
        visible = z <= _sampled(farthest, pixels, order=0) + _BEHIND * size
        weights = np.clip((cosines - _FACING[0]) / (_FACING[1] - _FACING[0]), 0, 1) * visible
        weights *= np.maximum(_sampled(confidences[view], pixels), _LEAST_CONFIDENCE)
        flow = np.stack([_sampled(displacements[view, ..., a], pixels) for a in range(2)], axis=1)
        system += np.einsum("p,pki,pkj->pij", weights, jacobians, jacobians)
        target += np.einsum("p,pki,pk->pi", weights, jacobians, flow)
    moved = _smooth_solution(system, target, place_of[mesh.faces.cpu().numpy()], mesh, size)
    shift = torch.from_numpy(moved[place_of].astype(np.float32)).to(mesh.vertices)
    return replace(mesh, vertices=mesh.vertices + shift)


def _projected(
    places: DoubleArray, matrix: DoubleArray
) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Pixels (P, 2), their derivatives by the place (P, 2, 3), and depths (P,)."""
    homogeneous = places @ matrix[:, :3].T + matrix[:, 3]
    z = np.maximum(homogeneous[:, 2], 1e-6)
    pixels = homogeneous[:, :2] / z[:, None]
    jacobians = (matrix[None, :2, :3] - pixels[:, :, None] * matrix[2, :3]) / z[:, None, None]
    return pixels, jacobians, z


def _sampled(picture: FloatArray, pixels: DoubleArray, order: int = 1) -> DoubleArray:
    """(P,) of a picture (h, w) at pixel coordinates, centres at .5; as at its border beyond it."""
    where = pixels[:, ::-1].T - 0.5
    return map_coordinates(picture, where, output=np.float64, order=order, mode="nearest")


def _smooth_solution(
    system: DoubleArray, target: DoubleArray, faces: NDArray[np.int64], mesh: Mesh, size: float
) -> DoubleArray:
    """(P, 3) displacements; system (P, 3, 3) and target (P, 3) each place's normal equations."""
    count = len(system)
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    rows, columns = np.concatenate([sides, sides[:, ::-1]]).T
    beside = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), (count, count)).tocsr()
    beside.data[:] = 1
    degrees = np.asarray(beside.sum(axis=1)).ravel()
    # Finer meshes have more places to pull, but as stiff edges: hence the area of a place.
    stiffness = (_REACH * size) ** 2 * count / measure_area(mesh)
    unit = float(np.trace(system, axis1=1, axis2=2).mean()) / 3
    laplacian = stiffness * (sparse.diags(degrees) - beside) + _STAY * sparse.identity(count)
    blocks = [[sparse.diags(system[:, i, j]) for j in range(3)] for i in range(3)]
    matrix = sparse.bmat(blocks) + unit * sparse.block_diag([laplacian] * 3)
    inverse = sparse.diags(1 / matrix.diagonal())
    solution, _ = cg(matrix.tocsr(), target.T.ravel(), rtol=1e-4, maxiter=1000, M=inverse)
    return np.asarray(solution).reshape(3, count).T
