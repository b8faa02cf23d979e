"""Reconstruct a textured mesh from an orbit video, a folder of frames or posed views."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from ..cameras import HI3D_FOV_DEGREES, HI3D_RADIUS
from ..read import MAX_VIEWS, read_views
from .products import add_product_arguments, check_products, make_products
from .stage_clock import StageClock


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "source", help="orbit video (mp4, gif, webp), folder of frames, or transforms.json"
    )
    add_product_arguments(parser)
    parser.add_argument(
        "--elevation", type=float, help="an orbit's elevation in degrees, -90 to 90 (default 0)"
    )
    parser.add_argument(
        "--radius", type=float, default=HI3D_RADIUS, help="an orbit's distance to the object"
    )
    parser.add_argument(
        "--fov", type=float, default=HI3D_FOV_DEGREES, help="an orbit's field of view, degrees"
    )
    parser.add_argument("--max-views", type=int, default=MAX_VIEWS, help="of more frames use these")
    parser.add_argument("--max-size", type=int, help="scale larger frames down to this, pixels")
    parser.add_argument(
        "--refine-cameras",
        action="store_true",
        help="correct the poses of posed photos by small turns and shifts, and the focal length",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu"),
        default="auto",
        help="auto: fit on CUDA what the installed packages can (see info); cpu: don't",
    )
    parser.add_argument("--masks", type=Path, help="folder with a mask for each frame")


def run(arguments: argparse.Namespace) -> None:
    """Read, reconstruct, write; see `add_arguments`. Raises ValueError for bad input."""
    config = replace(check_products(arguments), refine_cameras=arguments.refine_cameras)
    clock = StageClock()
    clock.begin("read")
    views = read_views(
        arguments.source,
        elevation_degrees=arguments.elevation,
        masks=arguments.masks,
        radius=arguments.radius,
        fov_degrees=arguments.fov,
        max_views=arguments.max_views,
        max_size=arguments.max_size,
    )
    device = None if arguments.device == "auto" else torch.device(arguments.device)
    make_products(views, config, arguments, clock, {"source": str(arguments.source)}, device)
