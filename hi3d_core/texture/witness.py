"""The views, prepared for asking what they show of a surface: depth drawn in, edges found.

Beside a silhouette or a depth edge a pixel may show something else than the surface it is thought
to (the background, a part behind), so trust falls to 0 there.

Letters: V views, H and W the pictures' height and width, h and w those of the grid that trust is
kept on: the pictures' own up to 1024 pixels, as edges need not be known any finer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from torch import Tensor

from ..cameras import Cameras
from ..datatypes import Mesh, OrbitViews
from ..progress import Progress
from ..raster import pixel_matrices, rasterize_triangles
from ..resize import resize_array

_DEPTH_SCALE = 2  # the z-buffer has this many pixels a pixel of trust, along each axis
_LARGEST_GRID = 1024  # pixels; larger pictures have their edges found at a fraction of their size
_OPAQUE = 0.95  # pixels with less coverage are edge pixels
_DEPTH_STEP = 6.0  # a jump in depth of more than this many pixels is an edge


@dataclass(frozen=True, eq=False)
class Witness:
    """The views, prepared for asking; made by `prepare_witness`.

    images (V, H, W, 3) over white and alphas (V, H, W); matrices (V, 3, 4) to (x z, y z, z) in
    pixels; positions (V, 3) of the cameras; depths (V, 2 h, 2 w) of the mesh, 0 where it isn't;
    trust (V, h, w) in [0, 1], 0 at edges; weights (V, H, W) in [0, 1] of the pixels' votes, or
    (V, 1, 1) for all alike; gains (V, 3) that level the pictures.
    """

    images: np.ndarray
    alphas: np.ndarray
    matrices: np.ndarray
    positions: np.ndarray
    depths: np.ndarray
    trust: np.ndarray
    weights: np.ndarray
    gains: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All of it, in the order in which the kernels of `votes` take it."""
        return (
            self.images,
            self.alphas,
            self.matrices,
            self.positions,
            self.depths,
            self.trust,
            self.weights,
            self.gains,
        )


def prepare_witness(
    mesh: Mesh,
    views: OrbitViews,
    feather_pixels: float,
    *,
    weights: Tensor | None = None,
    progress: Progress | None = None,
) -> Witness:
    """Draw the mesh's depth into each view and find where its pixels can be trusted.

    feather_pixels: how far from an edge a pixel is fully trusted. weights: (V, H, W) in [0, 1],
    what each pixel's vote counts beside the others. progress: stepped once a view.
    Raises ValueError for weights of another shape or range.
    """
    cameras = views.cameras.to("cpu")
    grid = _trust_grid(cameras)
    fine = grid.resized(_DEPTH_SCALE * grid.width, _DEPTH_SCALE * grid.height)
    alphas = views.alphas.detach().cpu().float().numpy()
    vertices, faces = mesh.vertices.cpu(), mesh.faces.cpu()
    depths = np.empty((len(views), fine.height, fine.width), dtype=np.float32)
    trust = np.empty((len(views), grid.height, grid.width), dtype=np.float32)
    feather = feather_pixels * grid.width / cameras.width
    progress = progress or Progress(None, 0)
    for view in range(len(views)):  # one at a time: the fragments are six times as large
        depths[view] = rasterize_triangles(vertices, faces, fine[[view]]).depths[0].numpy()
        progress.alive()
        edges = depth_edges(depths[view], float(fine.intrinsics[view, 0, 0]))
        progress.alive()
        blocks = edges.reshape(grid.height, _DEPTH_SCALE, grid.width, _DEPTH_SCALE)
        mostly = blocks.mean(axis=(1, 3)) >= 0.5
        alpha = alphas[view]
        if alpha.shape != mostly.shape:
            alpha = resize_array(alpha, grid.width, grid.height)
        trust[view] = edge_trust(mostly | (alpha < _OPAQUE), feather)
        progress.step()
    return Witness(
        images=np.ascontiguousarray(views.images.detach().cpu().float().numpy()),
        alphas=np.ascontiguousarray(alphas),
        matrices=pixel_matrices(cameras),
        positions=cameras.positions.double().numpy(),
        depths=depths,
        trust=trust,
        weights=_checked_weights(weights, views),
        gains=np.ones((len(views), 3), dtype=np.float32),
    )


def _trust_grid(cameras: Cameras) -> Cameras:
    """The cameras at the size that trust is kept at."""
    factor = max(1.0, max(cameras.width, cameras.height) / _LARGEST_GRID)
    return cameras.resized(
        max(1, round(cameras.width / factor)), max(1, round(cameras.height / factor))
    )


def _checked_weights(weights: Tensor | None, views: OrbitViews) -> np.ndarray:
    if weights is None:
        return np.ones((len(views), 1, 1), dtype=np.float32)
    if weights.shape != views.alphas.shape:
        raise ValueError(
            f"weights is {tuple(weights.shape)}, expected {tuple(views.alphas.shape)}: one number "
            "for each pixel of the views"
        )
    array = np.ascontiguousarray(weights.detach().cpu().float().numpy())
    low, high = float(array.min()), float(array.max())
    if not (low >= -1e-4 and high <= 1 + 1e-4):  # also refuses NaN
        raise ValueError(f"weights lie in [{low:g}, {high:g}], expected [0, 1]")
    return array


def depth_edges(depths: np.ndarray, focal: float) -> np.ndarray:
    """(H, W) whether the surface is missing or jumps at a pixel.

    depths: (H, W) z-depth, 0 for nothing. focal: in pixels. 1 / z is linear in the picture on any
    plane, so its second difference is nought there however steep the plane is.
    """
    empty = depths <= 0
    inverse = 1 / np.where(empty, np.float32(np.nan), depths)
    limit = _DEPTH_STEP * inverse / focal
    edges = empty.copy()
    with np.errstate(invalid="ignore"):  # beside nothing there is no difference to speak of
        edges[1:-1] |= np.abs(np.diff(inverse, 2, axis=0)) > limit[1:-1]
        edges[:, 1:-1] |= np.abs(np.diff(inverse, 2, axis=1)) > limit[:, 1:-1]
    return edges


def edge_trust(edges: np.ndarray, feather_pixels: float) -> np.ndarray:
    """(H, W) float32 in [0, 1]: 0 at edge pixels, rising smoothly to 1 at `feather_pixels`.

    In parts that are too thin to get that far from their edges (a chair's legs) it rises to
    their middle, but stays lower, so that a better view of them wins.
    """
    distance = ndimage.distance_transform_edt(~edges)
    if edges.any():
        distance = np.minimum(distance, feather_pixels)
    else:
        distance = np.full(edges.shape, feather_pixels)
    window = 2 * int(np.ceil(feather_pixels)) + 1
    reach = np.maximum(ndimage.maximum_filter(distance, window), 1.0)
    share = np.clip((distance - 0.5) / (reach - 0.5), 0, 1)
    thickness = 0.4 + 0.6 * np.minimum(reach / feather_pixels, 1)
    return (share * share * (3 - 2 * share) * thickness).astype(np.float32)
