"""`njit` for the whole library: compiled code is kept apart for each name the package goes by.

ComfyUI loads the pack under its folder's path, everything else as `hi3d_core`. Numba names the
files of its cache after the source file and the function alone, yet what lies in them imports its
modules by their full names: kept under one name, it can't be loaded under another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numba

_PACKAGE = __package__ or ""
_MARK = "" if _PACKAGE == "hi3d_core" else f"as_{hashlib.sha1(_PACKAGE.encode()).hexdigest()[:8]}_"


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit(**options)`, for functions whose code may be cached on disk."""

    def decorate(function: Callable[..., Any]) -> Any:
        # The file's name is made of this one.
        function.__qualname__ = _MARK + function.__qualname__
        return numba.njit(**options)(function)

    return decorate
