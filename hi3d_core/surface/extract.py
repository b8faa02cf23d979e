"""From the fitted field to a closed triangle mesh."""

from __future__ import annotations

import numpy as np
import torch
from skimage.measure import marching_cubes

from ..datatypes import Mesh
from .field import Field, close_border


def extract_mesh(field: Field) -> Mesh:
    """The zero level as triangles (Lewiner et al. 2003, topologically consistent).

    Returns vertices in the field's frame (the placement's local one), faces counter-clockwise
    seen from outside. Raises ValueError if the field has no inside.
    """
    sdf = close_border(field.sdf)
    if not (sdf < 0).any():
        raise ValueError(
            "the fitted surface is empty: the masks and cameras do not describe one object "
            "(check the elevation, the order of the frames and the masks)"
        )
    vertices, faces, _, _ = marching_cubes(sdf, level=0.0, gradient_direction="descent")
    vertices = field.grid.origin + vertices * field.grid.voxel
    return Mesh(
        torch.from_numpy(vertices.astype(np.float32)),
        torch.from_numpy(faces.astype(np.int64)),
    )
