"""What a mesh is worth: the scores of `evaluate`, normal consistency, and another judge's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hi3d_core.bvh import TriangleTree, closest_triangles
from hi3d_core.commands.evaluate import score
from hi3d_core.datatypes import Mesh
from hi3d_core.mesh_metrics import corners_of, joined, sample_surface, visible_points
from hi3d_core.read.mesh_file import read_meshes
from hi3d_core.read.posed import PosedFile

from .baselines import face_normals
from .cases import cameras_of

_VISIBLE_DEPTH = 2e-3  # world units below the first surface, as for the visible chamfer


def all_scores(mesh_file: Path, folder: Path) -> dict[str, Any]:
    """Scores of a mesh file against an object's folder: see docs/stages/evaluate.md.

    Besides those of `evaluate`: normal_consistency, see below.
    """
    parts = read_meshes(mesh_file)
    truth = joined(read_meshes(folder / "gt_closed.ply"))
    test, train = (PosedFile(folder / f"transforms{name}.json") for name in ("_test", ""))
    positions = cameras_of(folder).positions
    consistency = normal_consistency(joined(parts), truth, positions)
    return {**score(parts, truth, test, train), "normal_consistency": round(consistency, 4)}


def normal_consistency(
    prediction: Mesh, truth: Mesh, camera_positions: Tensor, *, samples: int = 60_000
) -> float:
    """How alike the surfaces are turned, in [0, 1]: lumps and stair steps lower it.

    Mean absolute cosine between the face normals at a sample and at the nearest point of the
    other mesh, over the samples that some camera sees, and over both directions (Mescheder et
    al. 2019, "Occupancy networks", there over all samples). camera_positions: (V, 3), world.
    """
    corners = [corners_of(mesh) for mesh in (prediction, truth)]
    trees = [TriangleTree(each) for each in corners]
    normals = [face_normals(each) for each in corners]
    means = []
    for mesh, here, there in ((prediction, 0, 1), (truth, 1, 0)):
        points = sample_surface(mesh, samples, 2)
        points = points[visible_points(trees[here], points, camera_positions, _VISIBLE_DEPTH)]
        if len(points) == 0:
            raise ValueError("no camera sees any of the mesh: are both in one world?")
        own = normals[here][closest_triangles(trees[here], points)[1]]
        other = normals[there][closest_triangles(trees[there], points)[1]]
        means.append(np.abs((own * other).sum(axis=1)).mean())
    return float(np.mean(means))


def judged(judge: Path, mesh_file: Path, folder: Path) -> dict[str, Any]:
    """The scores that another scorer prints as JSON on its last line: JUDGE MESH FOLDER.

    Raises RuntimeError if it fails.
    """
    command = [sys.executable, str(judge), str(mesh_file), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the judge {judge} failed: {last}")
    return dict(json.loads(lines[-1]))
