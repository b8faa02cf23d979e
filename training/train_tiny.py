#!/usr/bin/env python3
"""Train the small model from nothing: `python training/train_tiny.py`.

Draws toys, trains autoencoder, stage 1, depth network and stage 2 one after the other, and writes
`orbit.safetensors` and `refiner.safetensors`. It reads nothing but the repository and its own
state, and goes on where it was: `--minutes 9` stops after nine minutes, the same command goes on.
State that travels: `--split PARTS` cuts it into files below 16 MB, `--join PARTS` puts it together.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):  # run as a file: find the packages beside this folder
    sys.path[0] = str(ROOT)

import hi3d_core.patient_threads  # noqa: E402, F401
from hi3d_core.optional import MissingDependency  # noqa: E402
from training.engine.prepared import NonFiniteLoss  # noqa: E402
from training.engine.read_config import read_config  # noqa: E402
from training.tiny.pack import pack  # noqa: E402
from training.tiny.parts import join, split  # noqa: E402
from training.tiny.settings import TinySettings  # noqa: E402
from training.tiny.stages import Clock, Tiny  # noqa: E402

_EXPECTED = (ValueError, OSError, MissingDependency, NonFiniteLoss)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        print(_run(options))
    except _EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> str:
    if options.join is not None:
        return f"{join(options.join, options.state)} files are in {options.state} again"
    if options.split is not None:
        return f"{split(options.state, options.split)} parts are in {options.split}"
    settings = read_config(options.config, TinySettings, options.set)
    clock = Clock(options.minutes)
    tiny = Tiny(settings, options.state, clock, allow_changed=options.allow_changed)
    stages = tiny.stages()
    chosen = options.stages.split(",") if options.stages else list(stages)
    for name in chosen:
        if name not in stages:
            raise ValueError(f"there is no stage {name!r}: expected some of {', '.join(stages)}")
    for name in chosen:
        if tiny.file(name).exists():
            continue
        print(f"{name} ...", flush=True)
        if not stages[name]():
            return f"stopped in {name}: the same command goes on"
    if options.stages:
        return f"done: {options.stages}"
    pack(options.state, settings, options.out)
    return f"the weights are in {options.out}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=ROOT / "training" / "configs" / "tiny_cpu.toml",
        help="a TOML file (default: training/configs/tiny_cpu.toml)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path("outputs/tiny"),
        help="folder of everything in between (default: outputs/tiny)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/tiny/weights"),
        help="folder of the two files at the end (default: outputs/tiny/weights)",
    )
    parser.add_argument(
        "--minutes", type=float, help="stop after so many; go on by the same command"
    )
    parser.add_argument(
        "--allow-changed",
        action="store_true",
        help="go on with a stage although its settings (steps, rates) have changed",
    )
    parser.add_argument("--stages", help="only these, such as data,vae; others may run beside")
    parser.add_argument("--split", type=Path, help="cut the state into files below 16 MB there")
    parser.add_argument("--join", type=Path, help="put a state together from such files")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="such as orbit.train.steps=9",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
