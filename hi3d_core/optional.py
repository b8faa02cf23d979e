"""The one place that imports optional packages, with a message that says how to get them."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType


class MissingDependency(ImportError):
    """An optional package is needed and is not installed, or broken."""


@dataclass(frozen=True)
class Extra:
    """An optional package: what to install, what it gives, what happens without it."""

    install: str
    gives: str
    without: str


EXTRAS = {
    "gsplat": Extra(
        "gsplat",
        "Gaussian splats rasterized by CUDA kernels",
        "splats are rasterized on the CPU by numba",
    ),
    "warp": Extra(
        "warp-lang",
        "surfaces fitted on CUDA",
        "surfaces are fitted on the CPU by numba",
    ),
    "onnxruntime": Extra(
        "onnxruntime",
        "foreground masks on busy backgrounds (the U2-Net small network)",
        "plain backgrounds are keyed; others need an alpha channel or your own masks",
    ),
}


def is_available(module: str) -> bool:
    """Whether the optional module is installed; nothing is imported."""
    return importlib.util.find_spec(module) is not None


def require(module: str, *, for_: str) -> ModuleType:
    """Import an optional module, or raise MissingDependency with the install line.

    for_: what the caller wants it for, in words the user knows.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = EXTRAS[module]
        raise MissingDependency(
            f"{for_} needs the package {module}, which can't be imported ({error}): "
            f"pip install {extra.install}. Without it, {extra.without}."
        ) from error
