"""What commands that end in a mesh have in common: its settings, its files, its report."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..atomic_file import check_writable, replacing
from ..cameras import Cameras
from ..contact_sheet import contact_sheet
from ..datatypes import Mesh, OrbitViews
from ..export import check_mesh_suffix, write_mesh
from ..export.gaussian_ply import write_gaussian_ply
from ..memory import peak_memory_bytes
from ..metrics import mask_iou, psnr
from ..picture import read_input_picture
from ..pipeline import QUALITIES, Hints, ReconstructConfig, reconstruct
from ..render import render_mesh
from ..texture import BakedTexture, reference_picture, unseen_in_views
from .stage_clock import StageClock

_log = logging.getLogger(__name__)


def add_product_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how the mesh is made and what is written."""
    parser.add_argument("--out", required=True, type=Path, help="mesh: .glb, .obj, .ply or .stl")
    parser.add_argument(
        "--interpolate", type=int, metavar="M", help="views rendered in between (0: none)"
    )
    parser.add_argument("--quality", choices=QUALITIES, default="standard")
    parser.add_argument("--splat-out", type=Path, help="also write the Gaussian splat (.ply)")
    parser.add_argument("--report", type=Path, help="write settings, timings and fidelity (.json)")
    parser.add_argument("--sheet", type=Path, help="write a picture of input and result (.png)")
    parser.add_argument("--faces", type=int, help="face budget of the mesh")
    parser.add_argument("--texture", type=int, metavar="PIXELS", help="side of the texture")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="PICTURE",
        help="your own picture of the first view, at any size: its pixels win where it sees well",
    )
    parser.add_argument(
        "--no-align", action="store_true", help="fit views that disagree as they are"
    )
    parser.add_argument(
        "--unseen-out",
        type=Path,
        metavar="FOLDER",
        help="write masks of what no view saw: texels.png, and view_000.png and on for each view",
    )
    parser.add_argument("--seed", type=int, default=0)


def check_products(arguments: argparse.Namespace) -> ReconstructConfig:
    """The settings, once they and all output paths are known to be good.

    Raises ValueError for outputs that can't be written or would overwrite each other, and for
    settings out of range.
    """
    config = _settings(arguments)
    check_mesh_suffix(arguments.out)
    suffixes = {"splat_out": ".ply", "report": ".json", "sheet": ".png"}
    taken = {arguments.out}
    if arguments.out.suffix.lower() == ".obj":  # it comes with a material and a picture
        taken |= {arguments.out.with_suffix(suffix) for suffix in (".mtl", ".png")}
    check_writable(arguments.out)
    _check_extras(arguments)
    for name, suffix in suffixes.items():
        path: Path | None = getattr(arguments, name)
        if path is None:
            continue
        option = "--" + name.replace("_", "-")
        if path.suffix.lower() != suffix:
            raise ValueError(f"{option} is {path}, expected a name that ends in {suffix}")
        if path in taken:
            raise ValueError(f"{option} {path} is also written by another option: rename one")
        taken.add(path)
        check_writable(path)
    return config


def _check_extras(arguments: argparse.Namespace) -> None:
    if arguments.reference is not None and not arguments.reference.is_file():
        raise ValueError(f"--reference {arguments.reference} is not a file: give a picture")
    folder: Path | None = arguments.unseen_out
    if folder is not None:
        if arguments.texture == 0:
            raise ValueError("--unseen-out needs a texture: leave out --texture 0")
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--unseen-out {folder} is a file, expected a folder")


def make_products(
    views: OrbitViews,
    config: ReconstructConfig,
    arguments: argparse.Namespace,
    clock: StageClock,
    about: Mapping[str, Any],
    device: torch.device | None = None,
) -> None:
    """Reconstruct the views and write all that was asked for.

    about: where the views come from; the report begins with it. device: as for `reconstruct`.
    """
    result = reconstruct(
        views,
        config,
        hints=_hints(arguments.reference, views),
        want_splat=arguments.splat_out is not None,
        device=device,
        seed=arguments.seed,
        on_stage=clock.begin,
    )
    views = replace(views, cameras=result.cameras)
    clock.begin("write")
    write_mesh(result.mesh, arguments.out)
    if arguments.splat_out is not None and result.gaussians is not None:
        write_gaussian_ply(result.gaussians, arguments.splat_out)
    if arguments.unseen_out is not None:
        _write_unseen(result.texture, views.cameras, arguments.unseen_out)
    clock.end()
    if arguments.report is not None or arguments.sheet is not None:
        rendered = render_mesh(result.mesh, views.cameras)
    if arguments.report is not None:
        report = {
            **about,
            "quality": arguments.quality,
            "seed": arguments.seed,
            "settings": asdict(config),
            "seconds": clock.seconds,
            "peak_memory_bytes": peak_memory_bytes(),
            "faces": len(result.mesh.faces),
            "silhouette_agreement": round(result.agreement, 4),
            "aligned_by_pixels": None
            if result.shifts is None
            else [round(float(shift), 3) for shift in result.shifts],
            "views": _fidelity(views, rendered.images, rendered.alphas),
        }
        with replacing(arguments.report) as path:
            path.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.sheet is not None:
        _write_sheet(views, result.mesh, rendered.images, arguments.sheet)


def _settings(arguments: argparse.Namespace) -> ReconstructConfig:
    config = QUALITIES[arguments.quality]
    if arguments.interpolate is not None:
        if not 0 <= arguments.interpolate <= 256:
            raise ValueError(f"--interpolate is {arguments.interpolate}, expected 0 to 256")
        config = replace(config, interpolate=arguments.interpolate)
    if arguments.faces is not None:
        if arguments.faces < 100:
            raise ValueError(f"--faces is {arguments.faces}, expected at least 100")
        config = replace(config, face_budget=arguments.faces)
    if arguments.texture is not None:
        if arguments.texture != 0 and not 64 <= arguments.texture <= 8192:
            raise ValueError(
                f"--texture is {arguments.texture} pixels, expected 64 to 8192, or 0 for colours "
                "of the vertices"
            )
        config = replace(config, texture=replace(config.texture, size=arguments.texture))
    return replace(config, align=not arguments.no_align)


def _hints(picture: Path | None, views: OrbitViews) -> Hints:
    if picture is None:
        return Hints()
    colors, alpha = read_input_picture(picture)
    return Hints(reference=reference_picture(colors, alpha, views.cameras[[0]]))


def _write_unseen(texture: BakedTexture, cameras: Cameras, folder: Path) -> None:
    """Masks, white where there is room to paint, for the texture and for each view."""
    if texture.unseen.numel() == 0:
        _log.warning("no masks in %s: the mesh has colours at its vertices and no texture", folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    masks = {
        f"view_{index:03d}.png": mask
        for index, mask in enumerate(unseen_in_views(texture, cameras))
    }
    for name, mask in {"texels.png": texture.unseen.float(), **masks}.items():
        pixels = (mask.cpu().numpy() * 255 + 0.5).astype(np.uint8)
        with replacing(folder / name) as temporary:
            Image.fromarray(pixels).save(temporary)


def _fidelity(views: OrbitViews, images: Tensor, alphas: Tensor) -> dict[str, object]:
    """PSNR on white and mask IoU of the result drawn at the input cameras, view by view."""
    psnrs = [round(float(psnr(a, b)), 3) for a, b in zip(images, views.images, strict=True)]
    ious = [round(float(mask_iou(a, b)), 4) for a, b in zip(alphas, views.alphas, strict=True)]
    return {
        "psnr": psnrs,
        "mask_iou": ious,
        "mean_psnr": round(sum(psnrs) / len(psnrs), 3),
        "mean_mask_iou": round(sum(ious) / len(ious), 4),
    }


def _write_sheet(views: OrbitViews, mesh: Mesh, images: Tensor, path: Path) -> None:
    count = min(8, len(views))
    chosen = [index * len(views) // count for index in range(count)]
    plain = Mesh(mesh.vertices, mesh.faces)
    shape = render_mesh(plain, views.cameras[chosen], shading="soft")
    sheet = contact_sheet(
        [
            ("input", views.images[chosen]),
            ("result", images[chosen]),
            ("shape", shape.images),
        ]
    )
    with replacing(path) as temporary:
        sheet.save(temporary)
