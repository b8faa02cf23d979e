"""Cut a surface into charts and lay them out in a square: texture coordinates by xatlas."""

from __future__ import annotations

import numpy as np
import torch
import xatlas

from .datatypes import Mesh
from .mesh import measure_area

# A chart covers at most this share of the surface, or this many faces' worth of it. xatlas grows
# charts in more than linear time: on 50,000 faces the limit makes it several times faster and
# costs about a tenth of the atlas.
_LARGEST_CHART = 1 / 120
_LARGEST_CHART_FACES = 400


def unwrap(mesh: Mesh, texture_size: int = 2048) -> Mesh:
    """Give a mesh texture coordinates for a square texture.

    Vertices on chart borders are repeated, at bitwise equal positions, so that a reader that
    merges them finds the same closed surface. Charts lie at least `padding_pixels(texture_size)`
    texels apart. Faces keep their order and direction.

    mesh: without texture; vertex colours are carried along.
    texture_size: the side in texels that the charts are packed for.

    Returns a mesh with `uvs` (N, 2) in [0, 1], origin top left. Raises ValueError for a mesh
    without faces or a size below 64.
    """
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no faces: there is nothing to unwrap")
    if texture_size < 64:
        raise ValueError(f"the texture size is {texture_size}, expected at least 64 texels")
    vertices = mesh.vertices.detach().cpu().float().numpy()
    faces = mesh.faces.cpu().numpy()
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution = texture_size
    packing.padding = padding_pixels(texture_size)
    packing.bilinear = True
    charts = xatlas.ChartOptions()
    share = max(_LARGEST_CHART, _LARGEST_CHART_FACES / len(faces))
    charts.max_chart_area = share * measure_area(mesh)
    atlas.generate(charts, packing)
    source, indices, uvs = atlas.get_mesh(0)
    origin = torch.from_numpy(source.astype(np.int64)).to(mesh.vertices.device)
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors[origin]
    return Mesh(
        mesh.vertices[origin],
        torch.from_numpy(indices.astype(np.int64)).to(mesh.faces),
        uvs=torch.from_numpy(np.clip(uvs, 0, 1).astype(np.float32)).to(mesh.vertices.device),
        vertex_colors=colors,
    )


def padding_pixels(texture_size: int) -> int:
    """Texels between charts: enough for two mip levels (4 texels at 2048)."""
    return max(2, texture_size // 512)
