"""Workflows at settings that take seconds on a CPU, for tests and pictures."""

from __future__ import annotations

import copy
from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "Hi3DNeusMesher": {"quality": "preview", "face_budget": 4000, "texture_size": 512},
    "Hi3DImageTo3D": {"quality": "preview"},
    "Hi3DGaussianSplatInterpolator": {"steps": 100, "count": 2000},
    "Hi3DTextureBaker": {"texture_size": 512},
    "Hi3DMeshRenderer": {"size": 128},
}


def small(graph: dict[str, Any]) -> dict[str, Any]:
    """An API workflow, smaller. A texture that was not wanted stays so."""
    made = copy.deepcopy(graph)
    for node in made.values():
        for name, value in SMALL.get(node["class_type"], {}).items():
            if node["inputs"][name] or name != "texture_size":
                node["inputs"][name] = value
    return made
