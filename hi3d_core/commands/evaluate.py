"""Score a mesh against the truth: distances, volume IoU, and PSNR and SSIM of rendered views."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..atomic_file import check_writable, replacing
from ..cameras import Cameras
from ..datatypes import Mesh
from ..mesh import is_watertight
from ..mesh_metrics import (
    MeasuringFrame,
    joined,
    surface_distances,
    visible_chamfer,
    volume_iou,
)
from ..metrics import psnr, ssim
from ..read.mesh_file import read_meshes
from ..read.pictures import read_picture
from ..read.posed import PosedFile
from ..render import over_white, render_mesh

# In a folder of truth: meshes that close the object's openings are fit for a volume.
_TRUE_MESHES = ("gt_closed.ply", "gt.glb", "gt.ply", "gt.obj")
_TEST_VIEWS = "transforms_test.json"
_TRAIN_VIEWS = "transforms.json"
# How deep under the first surface a sample counts as seen, in units of the measuring frame.
_VISIBLE_DEPTH = 2e-3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("prediction", type=Path, help="mesh to score: .glb, .obj, .ply, .stl")
    parser.add_argument(
        "truth",
        type=Path,
        help=f"true mesh, or a folder with {_TRUE_MESHES[0]} or {_TRUE_MESHES[1]} and, if there, "
        f"{_TRAIN_VIEWS} and {_TEST_VIEWS}",
    )
    parser.add_argument(
        "--views", type=Path, help="transforms.json of pictures to compare with (PSNR, SSIM)"
    )
    parser.add_argument(
        "--train-views",
        type=Path,
        help="transforms.json of the views it was made from (visible_chamfer)",
    )
    parser.add_argument("--out", type=Path, help="also write the scores here (.json)")


def run(arguments: argparse.Namespace) -> None:
    """Score and write JSON to standard output; see `add_arguments`. ValueError for bad input."""
    if arguments.out is not None:
        check_writable(arguments.out)
    test, train = arguments.views, arguments.train_views
    if arguments.truth.is_dir():
        test = test or _if_there(arguments.truth / _TEST_VIEWS)
        train = train or _if_there(arguments.truth / _TRAIN_VIEWS)
    scores = score(
        read_meshes(arguments.prediction),
        joined(read_meshes(_true_mesh(arguments.truth))),
        None if test is None else PosedFile(test),
        None if train is None else PosedFile(train),
    )
    report = {"prediction": str(arguments.prediction), "truth": str(arguments.truth), **scores}
    text = json.dumps(report, indent=2) + "\n"
    if arguments.out is not None:
        with replacing(arguments.out) as path:
            path.write_text(text)
    sys.stdout.write(text)


def score(
    prediction: list[Mesh], truth: Mesh, test: PosedFile | None, train: PosedFile | None
) -> dict[str, Any]:
    """All scores of a mesh; those that need views that are not given are left out.

    prediction: its parts. test: pictures to compare renders with. train: the views whose
    visible surface counts for `visible_chamfer`. Lengths are in the truth's world units.

    Raises ValueError for meshes without surface and views that can't be read.
    """
    whole = joined(prediction)
    frame = MeasuringFrame.of(truth)
    scores: dict[str, Any] = {}
    if train is not None:
        positions = _cameras(train).positions
        depth = _VISIBLE_DEPTH * frame.unit
        scores["visible_chamfer"] = visible_chamfer(whole, truth, positions, tolerance=depth)
    distances = surface_distances(whole, truth)
    scores["chamfer"] = distances.chamfer
    scores["accuracy"] = distances.accuracy
    scores["completeness"] = distances.completeness
    scores["iou"] = volume_iou(whole, truth, frame)
    if test is not None:
        pairs = [
            (psnr(image, picture), ssim(image, picture))
            for image, picture in _rendered_and_true(prediction, test)
        ]
        psnrs, ssims = zip(*pairs, strict=True)
        scores["psnr"], scores["ssim"] = sum(psnrs) / len(pairs), sum(ssims) / len(pairs)
    scores = {name: round(value, 6) for name, value in scores.items()}
    return {**scores, "watertight": is_watertight(whole), "faces": len(whole.faces)}


def _rendered_and_true(meshes: list[Mesh], views: PosedFile) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of pictures over white (H, W, 3), one view at a time to save memory."""
    for index in range(len(views)):
        picture = _picture(views.files[index])
        height, width = picture.shape[:2]
        camera = views.cameras([index], width, height)
        yield render_mesh(meshes, camera).images[0], picture


def _picture(file: Path) -> Tensor:
    pixels = torch.from_numpy(read_picture(file))
    if pixels.shape[2] == 3:
        return pixels
    return over_white(pixels[..., :3], pixels[..., 3])


def _cameras(views: PosedFile) -> Cameras:
    height, width = read_picture(views.files[0]).shape[:2]
    return views.cameras(range(len(views)), width, height)


def _true_mesh(truth: Path) -> Path:
    if not truth.is_dir():
        return truth
    for name in _TRUE_MESHES:
        if (truth / name).is_file():
            return truth / name
    raise ValueError(
        f"the folder {truth} holds no true mesh: expected one of {', '.join(_TRUE_MESHES)}"
    )


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None
