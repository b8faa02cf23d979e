"""Say what is installed, which device is used, and what each missing extra would give."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Callable

import torch

from .. import __version__
from ..optional import EXTRAS, is_available
from ..splat.rasterize import has_cuda_kernels
from ..surface.backend import can_fit_on
from ..weights.find import describe as describe_weights

_PACKAGES = (
    "numpy",
    "numba",
    "scipy",
    "scikit-image",
    "trimesh",
    "xatlas",
    "av",
    "pillow",
    "diffusers",
    "transformers",
    "kornia",
    "safetensors",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`info` takes none."""


def run(arguments: argparse.Namespace) -> None:
    """Write the report to standard output."""
    sys.stdout.write(describe() + "\n")


def describe() -> str:
    """The report as text."""
    lines = [
        f"Hi3D {__version__}",
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}",
        f"torch {torch.__version__}, device: {_device()}",
        f"splats are fitted on {_fitted_on(has_cuda_kernels)}, "
        f"surfaces on {_fitted_on(can_fit_on)}",
    ]
    lines += [f"{name} {_version(name) or 'MISSING'}" for name in _PACKAGES]
    lines.append("extras:")
    for module, extra in EXTRAS.items():
        if is_available(module):
            lines.append(f"  {module} {_version(extra.install) or ''}: {extra.gives}")
        else:
            lines.append(
                f"  {module} is not installed: pip install {extra.install} would give "
                f"{extra.gives}; without it {extra.without}"
            )
    lines.append("weights (looked for in HI3D_MODELS and models/hi3d):")
    lines += [f"  {line}" for line in describe_weights()]
    return "\n".join(lines)


def _device() -> str:
    if torch.cuda.is_available():
        return f"CUDA, {torch.cuda.get_device_name()}"
    return f"CPU, {torch.get_num_threads()} threads"


def _fitted_on(kernels: Callable[[torch.device], bool]) -> str:
    return "CUDA" if kernels(torch.device("cuda")) else "the CPU"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
