"""Other ways from the same views to a mesh, for comparison in the same run.

    hull     the visual hull at 256 nodes
    tsdf     depths of the splat from the given and 32 in-between cameras, fused at 224 nodes
    poisson  screened Poisson surface (Kazhdan and Hoppe 2013) through points of the hull with its
             normals, by Open3D
    node     ComfyUI's Extract Mesh from Splat with its default settings, on the same splat

All but the node's, which comes with vertex colours, are cleaned, simplified, unwrapped and
textured as ours are, so that only the surface differs.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

import numpy as np
import torch
from skimage.measure import marching_cubes

from hi3d_core.bvh import TriangleTree, closest_triangles
from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import Gaussians, Mesh, OnStage, OrbitViews
from hi3d_core.mesh import finish_mesh
from hi3d_core.mesh_metrics import corners_of, sample_surface
from hi3d_core.pipeline import QUALITIES, ReconstructConfig, in_local_frame, shrunk
from hi3d_core.splat.fit import fit_gaussians
from hi3d_core.splat.interpolate import in_between_cameras, render_views
from hi3d_core.surface.field import close_border
from hi3d_core.surface.hull import FloatArray, Grid, Placement, hull_distance, hull_points, locate
from hi3d_core.texture import bake_texture
from hi3d_core.unwrap import unwrap

from .host import extract_with_host
from .skipped import Skipped
from .tsdf import fuse_depths

HULL_NODES, TSDF_NODES = 256, 224
TSDF_BETWEEN = 32  # cameras besides the given ones
POISSON_POINTS, POISSON_DEPTH = 200_000, 8

Surface = Callable[[OrbitViews, Placement, Gaussians | None], Mesh]


def fit_splat(views: OrbitViews, on_stage: OnStage, seed: int) -> Gaussians:
    """The splat that `tsdf` and `node` start from: the standard one, in the local frame."""
    config = QUALITIES["standard"].splat
    local = shrunk(in_local_frame(views, locate(views)), config.size)
    points = hull_points(local, config.count, seed)
    return fit_gaussians(local, points, config, seed=seed, on_step=on_stage("splat"))


def baseline(method: str, views: OrbitViews, splat: Gaussians | None, on_stage: OnStage) -> Mesh:
    """Run a method of `SURFACES` on views; its mesh in the views' world.

    splat: that of `fit_splat`, which the methods in `NEED_SPLAT` use. Raises Skipped where
    something optional is missing.
    """
    config = ReconstructConfig()
    on_stage("placement")
    placement = locate(views)
    local = in_local_frame(views, placement)
    on_stage("surface")
    mesh = SURFACES[method](local, placement, splat)
    if mesh.vertex_colors is None:
        on_stage("mesh")
        mesh = unwrap(finish_mesh(mesh, config.face_budget), config.texture.size)
        mesh = bake_texture(mesh, local, config.texture, on_step=on_stage("texture"))
    return mesh.from_frame(placement.center, placement.scale)


def hull_surface(
    local: OrbitViews,
    placement: Placement,
    splat: Gaussians | None = None,
    nodes: int = HULL_NODES,
) -> Mesh:
    """The visual hull's surface, on a grid of `nodes` on the longest side."""
    grid = placement.grid(nodes)
    return _zero_level(hull_distance(local, grid), grid)


def tsdf_surface(local: OrbitViews, placement: Placement, splat: Gaussians | None) -> Mesh:
    """The surface of fused depths of the splat."""
    if splat is None:
        raise ValueError("the fusion of depths needs the splat")
    given = local.cameras
    between = in_between_cameras(given, TSDF_BETWEEN)
    cameras = Cameras(
        torch.cat([given.camera_to_world, between.camera_to_world]),
        torch.cat([given.intrinsics, between.intrinsics]),
        given.width,
        given.height,
    )
    grid = placement.grid(TSDF_NODES)
    return _zero_level(fuse_depths(render_views(splat, cameras), grid), grid)


def poisson_surface(
    local: OrbitViews, placement: Placement, splat: Gaussians | None = None
) -> Mesh:
    """Screened Poisson through points of the hull. Raises Skipped without Open3D."""
    if importlib.util.find_spec("open3d") is None:
        raise Skipped("Open3D is not installed (pip install open3d)")
    try:
        open3d = importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        raise Skipped(f"Open3D can't be imported: {error}") from error
    points, normals = points_with_normals(hull_surface(local, placement), POISSON_POINTS)
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    cloud.normals = open3d.utility.Vector3dVector(normals)
    # One thread gives the same mesh every time.
    made, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(
        cloud, depth=POISSON_DEPTH, n_threads=1
    )
    return Mesh(
        torch.from_numpy(np.asarray(made.vertices, np.float32)),
        torch.from_numpy(np.asarray(made.triangles, np.int64)),
    )


def points_with_normals(mesh: Mesh, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points spread over a mesh and its outward unit normals there: (count, 3) each."""
    points = sample_surface(mesh, count, seed=0)
    corners = corners_of(mesh)
    _, rows = closest_triangles(TriangleTree(corners), points)
    return points, face_normals(corners)[rows]


def face_normals(corners: np.ndarray) -> np.ndarray:
    """(M, 3) unit normals of faces (M, 3, 3), outward for counter-clockwise ones; 0 if empty."""
    crosses = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return crosses / np.maximum(np.linalg.norm(crosses, axis=1, keepdims=True), 1e-300)


def node_surface(local: OrbitViews, placement: Placement, splat: Gaussians | None) -> Mesh:
    """What the host's node makes of the splat."""
    if splat is None:
        raise ValueError("the host's node needs the splat")
    return extract_with_host(splat)


SURFACES: dict[str, Surface] = {
    "hull": hull_surface,
    "tsdf": tsdf_surface,
    "poisson": poisson_surface,
    "node": node_surface,
}
NEED_SPLAT = ("tsdf", "node")


def _zero_level(distance: FloatArray, grid: Grid) -> Mesh:
    """The surface of a distance at a grid's nodes, closed, in the grid's world."""
    # `close_border` sets voxels: bring other units to some such size.
    closed = close_border(np.ascontiguousarray(distance / np.float32(grid.voxel), np.float32))
    vertices, faces, _, _ = marching_cubes(closed, level=0.0, gradient_direction="descent")
    placed = grid.origin + vertices * grid.voxel
    return Mesh(
        torch.from_numpy(placed.astype(np.float32)), torch.from_numpy(faces.astype(np.int64))
    )
