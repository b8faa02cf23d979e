#!/usr/bin/env python3
"""Train stage 1, picture to orbit: `python -m training.train_orbit CONFIG --out RUN`.

CONFIG is a TOML file, such as training/configs/orbit_smoke.toml. Several GPUs or machines:
`accelerate launch --config_file training/configs/accelerate/multi_gpu.yaml -m
training.train_orbit CONFIG --out RUN`.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: find the packages beside this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.engine.command import run_command
from training.engine.video_run import OrbitRun, build_orbit


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(OrbitRun, build_orbit, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main())
