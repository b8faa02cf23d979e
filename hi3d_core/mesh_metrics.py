"""How alike two surfaces, or the solids they bound, are.

Distances are between samples drawn evenly over the surfaces, always the same ones for the same
mesh, so that a score repeats. All lengths are in world units; the defaults are for objects
about one unit across, `MeasuringFrame.of` adapts them to others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from .bvh import TriangleTree, closest_triangles, first_hits
from .datatypes import Mesh
from .winding_number import winding_numbers

# The cube in which unit-size objects are compared, and how small one may be to count as such.
_HALF_SIDE = 0.6
_SMALLEST_UNIT_OBJECT = 0.5


@dataclass(frozen=True)
class MeasuringFrame:
    """Where and at which scale two meshes are compared.

    center: of the cube, in the world. unit: what counts as one unit of length, in world units:
    the cube's side is 1.2 of them.
    """

    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    unit: float = 1.0

    @staticmethod
    def of(truth: Mesh) -> MeasuringFrame:
        """The frame for a true mesh: the world's own [-0.6, 0.6] cube if the mesh is at home
        there (it fits, and is at least 0.5 long), else its bounding box's centre and longest side.
        """
        triangles = corners_of(truth)
        low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
        longest = float((high - low).max())
        if longest <= 0:
            raise ValueError("all vertices of the true mesh lie in one point: nothing to compare")
        if max(abs(low).max(), abs(high).max()) <= _HALF_SIDE and longest >= _SMALLEST_UNIT_OBJECT:
            return MeasuringFrame()
        x, y, z = ((low + high) / 2).tolist()
        return MeasuringFrame((x, y, z), longest)


@dataclass(frozen=True)
class SurfaceDistances:
    """Mean distances in world units: accuracy from the prediction's samples to the truth's,
    completeness from the truth's to the prediction's, chamfer the mean of both."""

    accuracy: float
    completeness: float

    @property
    def chamfer(self) -> float:
        return (self.accuracy + self.completeness) / 2


def surface_distances(prediction: Mesh, truth: Mesh, samples: int = 100_000) -> SurfaceDistances:
    """Mean nearest-neighbour distances between samples of both surfaces, not squared.

    Two equal meshes do not score 0 but the spacing of the samples: about 0.0015 to 0.003 for
    100,000 on an object one unit across. `visible_chamfer` has no such floor.
    Raises ValueError for a mesh without area.
    """
    points, true_points = sample_surface(prediction, samples, 0), sample_surface(truth, samples, 1)
    accuracy = cKDTree(true_points).query(points, workers=-1)[0].mean()
    completeness = cKDTree(points).query(true_points, workers=-1)[0].mean()
    return SurfaceDistances(float(accuracy), float(completeness))


def visible_chamfer(
    prediction: Mesh,
    truth: Mesh,
    camera_positions: Tensor,
    *,
    tolerance: float = 2e-3,
    samples: int = 60_000,
) -> float:
    """Chamfer distance over the surface that cameras see: what a reconstruction is to blame for.

    Samples of each mesh that some camera sees past that same mesh are measured to the other
    mesh's whole surface, exactly; the mean of both directions, in world units.

    camera_positions: (V, 3). tolerance: how deep under the first hit a sample still counts as
    seen, in world units. Raises ValueError for a mesh without area, or one of which no camera
    sees anything.
    """
    trees = [TriangleTree(corners_of(mesh)) for mesh in (prediction, truth)]
    means = []
    for mesh, tree, other, name in (
        (prediction, trees[0], trees[1], "predicted"),
        (truth, trees[1], trees[0], "true"),
    ):
        points = sample_surface(mesh, samples, 2)
        seen = points[visible_points(tree, points, camera_positions, tolerance)]
        if len(seen) == 0:
            raise ValueError(f"no camera sees any of the {name} mesh: are both in one world?")
        means.append(closest_triangles(other, seen)[0].mean())
    return float(np.mean(means))


def visible_points(
    tree: TriangleTree, points: NDArray, camera_positions: Tensor, tolerance: float
) -> NDArray[np.bool_]:
    """Which points (N, 3) at least one camera sees: no triangle, whichever way it faces, lies
    more than `tolerance` (world units) before them. Fields of view are not asked."""
    seen = np.zeros(len(points), dtype=bool)
    for position in camera_positions.detach().cpu().double().numpy():
        hidden = np.flatnonzero(~seen)
        rays = points[hidden] - position
        distances = np.linalg.norm(rays, axis=1)
        # The ray is the way to the point, so it ends at 1; the limit keeps the search short.
        limits = 1 - tolerance / np.maximum(distances, 1e-300)
        reach, _ = first_hits(tree, np.broadcast_to(position, rays.shape), rays, limits)
        seen[hidden] = np.isinf(reach)
    return seen


def volume_iou(
    prediction: Mesh,
    truth: Mesh,
    frame: MeasuringFrame = MeasuringFrame(),
    resolution: int = 128,
) -> float:
    """Intersection over union of what the meshes wind around (winding number above one half).

    Asked at the cell centres of a resolution³ grid over the frame's cube; what lies outside it
    does not count. 0 if neither encloses any centre.
    """
    first, second = (occupancy(mesh, frame, resolution) for mesh in (prediction, truth))
    union = int((first | second).sum())
    return 0.0 if union == 0 else int((first & second).sum()) / union


def occupancy(mesh: Mesh, frame: MeasuringFrame, resolution: int = 128) -> NDArray[np.bool_]:
    """Which cell centres of the frame's cube lie inside: (R, R, R), axes x, y, z."""
    steps = ((np.arange(resolution) + 0.5) / resolution * 2 - 1) * _HALF_SIDE * frame.unit
    axes = [steps + offset for offset in frame.center]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    inside = winding_numbers(TriangleTree(corners_of(mesh)), points.reshape(-1, 3)) > 0.5
    return inside.reshape(resolution, resolution, resolution)


def sample_surface(mesh: Mesh, count: int, seed: int) -> NDArray[np.float64]:
    """Points spread evenly at random over a mesh: (count, 3). ValueError if it has no area."""
    import trimesh

    triangles = corners_of(mesh)
    surface = trimesh.Trimesh(
        triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3), process=False
    )
    if not surface.area > 0:
        raise ValueError("the mesh has no area: its faces are empty, so it has no surface")
    return np.asarray(trimesh.sample.sample_surface(surface, count, seed=seed)[0])


def corners_of(mesh: Mesh) -> NDArray[np.float64]:
    """(M, 3, 3) the corners of each face. Raises ValueError for a mesh without faces."""
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no faces: there is no surface to measure")
    vertices = mesh.vertices.detach().cpu().double().numpy()
    return vertices[mesh.faces.cpu().numpy()]


def joined(meshes: list[Mesh]) -> Mesh:
    """The surface of several meshes as one: positions and faces only."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Mesh(
        torch.cat([mesh.vertices for mesh in meshes]),
        torch.cat([mesh.faces + int(start) for mesh, start in zip(meshes, starts, strict=False)]),
    )
