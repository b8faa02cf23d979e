"""Options of the command line for `SampleOptions`, shared by what runs the networks."""

from __future__ import annotations

import argparse

from ..sample_options import SampleOptions

_TOGETHER = {"auto": None, "together": True, "apart": False}


def add_sample_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them, in a group of their own."""
    group = parser.add_argument_group("memory and speed of the networks")
    group.add_argument(
        "--guide",
        choices=_TOGETHER,
        default="auto",
        help="both branches of guidance together (faster) or one after the other (half the "
        "memory); by default as free memory allows",
    )
    group.add_argument(
        "--frames-at-once",
        type=int,
        default=SampleOptions.frames_at_once,
        help="frames in one call of the autoencoder (default 1, the least memory)",
    )
    group.add_argument(
        "--feed-forward-chunks",
        type=int,
        default=SampleOptions.feed_forward_chunks,
        help="parts of the feed-forward layers: more take less memory (default 4)",
    )
    group.add_argument(
        "--tiled",
        action="store_true",
        help="autoencoder in overlapping tiles: least memory, changes the result",
    )
    group.add_argument(
        "--reuse-every",
        type=int,
        default=SampleOptions.reuse_every,
        metavar="N",
        help="deep features in every N-th step only: faster, changes the result (default 1)",
    )
    group.add_argument("--compile", action="store_true", help="torch.compile the video UNet")


def sample_options(arguments: argparse.Namespace) -> SampleOptions:
    """The options as given. Raises ValueError for values out of range."""
    return SampleOptions(
        guide_at_once=_TOGETHER[arguments.guide],
        frames_at_once=arguments.frames_at_once,
        tiled=arguments.tiled,
        feed_forward_chunks=arguments.feed_forward_chunks,
        reuse_every=arguments.reuse_every,
        compiled=arguments.compile,
    )
