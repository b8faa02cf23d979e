"""`python -m hi3d_core COMMAND`: parse, run, and turn errors into messages and exit codes.

0 done, 1 a fit that broke down, 2 bad input or output (nothing is written), 130 cancelled.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from . import (
    __version__,
    patient_threads,  # noqa: F401 - for what it sets
)
from .optional import MissingDependency

_OUT_OF_MEMORY = (
    "error: out of memory; use --max-size, --max-views or --quality preview; where views are "
    "painted, --guide apart, --size or --no-refine"
)
# Torch's own words for it on a CPU, and on Apple's GPU.
_NO_MEMORY_WORDS = ("allocate memory", "out of memory")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        import torch

        from .commands import COMMANDS
    except ModuleNotFoundError as error:
        return _say(
            f"error: the package {error.name} is missing: pip install -r requirements.txt "
            "(torch is installed apart, see the README)",
            2,
        )
    parser = argparse.ArgumentParser(
        prog="python -m hi3d_core",
        description="A picture, posed views or an orbit video in; a textured mesh and a splat out.",
    )
    parser.add_argument("--version", action="version", version=f"Hi3D {__version__}")
    choices = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        summary = (command.__doc__ or "").strip().splitlines()[0]
        choice = choices.add_parser(name, help=summary, description=command.__doc__)
        command.add_arguments(choice)
        choice.set_defaults(run=command.run)
    parsed = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    try:
        parsed.run(parsed)
    except KeyboardInterrupt:
        return _say("cancelled; no half-written file is left", 130)
    except (ValueError, OSError, MissingDependency) as error:
        return _say(f"error: {error}", 2)
    except (MemoryError, torch.OutOfMemoryError):
        return _say(_OUT_OF_MEMORY, 2)
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_MEMORY_WORDS):
            raise
        return _say(_OUT_OF_MEMORY, 2)
    except FloatingPointError as error:
        return _say(f"error: {error}; nothing was written", 1)
    return 0


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"\n{message}\n")
    return code


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Being told to end is as good as Ctrl-C: temporary files are removed on the way out.
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())
