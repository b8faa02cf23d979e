"""Convert a diffusion checkpoint to a safe, half-sized safetensors file that loads at once."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ..atomic_file import check_writable
from .unseen_settings import add_unseen_argument

_log = logging.getLogger(__name__)

_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "keep": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="first_stage.pt, second_stage.pt, a .ckpt, .safetensors or diffusers folder",
    )
    parser.add_argument("--out", required=True, type=Path, help="a new .safetensors file")
    parser.add_argument(
        "--dtype", choices=_DTYPES, default="fp16", help="number format of the copy (default fp16)"
    )
    parser.add_argument(
        "--image-encoder", type=Path, help="OpenCLIP's file or SVD's image_encoder folder"
    )
    parser.add_argument("--depth-checkpoint", type=Path, help="dpt_hybrid_384.pt or its folder")
    parser.add_argument("--vae", type=Path, help="an autoencoder, if the checkpoint holds none")
    parser.add_argument(
        "--image-encoder-inside",
        action="store_true",
        help="put the image encoder into the file too, instead of beside it for both stages",
    )
    add_unseen_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    """Convert; see `add_arguments`. Raises ValueError for bad input."""
    import torch

    from ..weights.convert import convert
    from .stage_clock import StageClock

    check_writable(arguments.out)
    kind = _DTYPES[arguments.dtype]
    clock = StageClock()
    written = convert(
        arguments.checkpoint,
        arguments.out,
        dtype=None if kind is None else getattr(torch, kind),
        image_encoder=arguments.image_encoder,
        depth=arguments.depth_checkpoint,
        vae=arguments.vae,
        image_encoder_inside=arguments.image_encoder_inside,
        unseen=arguments.set,
        on_stage=clock.begin,
    )
    clock.end()
    for path in written:
        _log.info("wrote %s, %.2f GB", path, path.stat().st_size / 1e9)
