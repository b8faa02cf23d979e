#!/usr/bin/env python3
"""Train stage 2, coarse orbit to fine orbit: `python -m training.train_refiner CONFIG --out RUN`.

CONFIG is a TOML file, such as training/configs/refiner_smoke.toml. Several GPUs or machines:
`accelerate launch --config_file training/configs/accelerate/multi_gpu.yaml -m
training.train_refiner CONFIG --out RUN`.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: find the packages beside this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.engine.command import run_command
from training.engine.video_run import RefinerRun, build_refiner


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(RefinerRun, build_refiner, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main())
