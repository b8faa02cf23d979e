"""The command line that all training scripts share."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from hi3d_core.optional import MissingDependency

from ..recipe import Recipe
from .dry_run import dry_run
from .loop import Resume, check_resume, train
from .prepared import NonFiniteLoss, part_processes
from .read_config import read_config
from .settings import EngineSettings

Settings = TypeVar("Settings", bound=EngineSettings)

# What is the user's to mend gets a sentence; anything else shows where it came from.
_EXPECTED = (ValueError, OSError, MissingDependency, NonFiniteLoss)


def run_command(
    kind: type[Settings],
    build: Callable[[Settings], Recipe],
    description: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Read the command line, train, and return the exit code: 0, or 1 after a message.

    kind: the dataclass that the TOML file is read into. build: makes the recipe of it.
    """
    options = _parser(description).parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        print(_run(kind, build, options))
    except _EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    part_processes()
    return 0


def _run(
    kind: type[Settings], build: Callable[[Settings], Recipe], options: argparse.Namespace
) -> str:
    settings = read_config(options.config, kind, options.set)
    resume: Resume = "must" if options.resume else "never"
    # Before minutes are spent on loading networks.
    check_resume(settings, options.out, resume, options.allow_changed)
    recipe = build(settings)
    if options.dry_run:
        return dry_run(recipe, settings, options.out)
    outcome = train(
        recipe,
        settings,
        options.out,
        resume=resume,
        allow_changed=options.allow_changed,
        minutes=options.minutes,
    )
    if outcome.reason is not None:
        return (
            f"{outcome.reason} after {outcome.steps} of {settings.train.steps} steps; "
            f"{outcome.checkpoint} is written: go on with --resume"
        )
    return f"{outcome.steps} steps are done: {outcome.checkpoint}"


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="a TOML file, such as training/configs/*.toml")
    parser.add_argument(
        "--out", type=Path, required=True, help="the run's folder: checkpoints, log, samples"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the folder's last checkpoint"
    )
    parser.add_argument(
        "--allow-changed",
        action="store_true",
        help="go on although settings changed that may, such as train.steps",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help='another value than the file\'s, such as train.steps=100 or train.precision="bf16"',
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="take one step, tell of it and write nothing"
    )
    parser.add_argument(
        "--minutes", type=float, help="write a checkpoint and stop after so many minutes"
    )
    return parser
