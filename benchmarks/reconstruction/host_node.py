"""Run ComfyUI's own "Extract Mesh from Splat" on one splat; started by `host.py`.

    python host_node.py COMFYUI SPLAT.npz MESH.npz

Runs under the host's Python, which need not have this project's packages. The splat's file holds
positions, scales, rotations, opacities and sh as the host's SPLAT has them, without the batch;
the mesh's holds vertices, faces and colors (linear light), or `missing`: why there is no mesh.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

_NODE_ID = "SplatToMesh"
_MODULE = "comfy_extras.nodes_gaussian_splat"


def main() -> None:
    """Read, run the node with its default settings, write."""
    host, splat, mesh = sys.argv[1:4]
    sys.argv = ["main.py", "--cpu"]
    sys.path.insert(0, host)
    made = _extract(Path(host), splat)
    np.savez(mesh, allow_pickle=False, **made)


def _extract(host: Path, splat: str) -> dict[str, np.ndarray]:
    if not (host / (_MODULE.replace(".", "/") + ".py")).is_file():
        return {"missing": np.array("this host has no node Extract Mesh from Splat")}
    import importlib

    import torch

    importlib.import_module("comfy.options").enable_args_parsing()
    node = getattr(importlib.import_module(_MODULE), _NODE_ID)
    types = importlib.import_module("comfy_api.latest").Types
    values = {name: torch.from_numpy(value)[None] for name, value in np.load(splat).items()}
    defaults = {
        each.id: each.default
        for each in node.define_schema().inputs
        if getattr(each, "default", None) is not None
    }
    with torch.inference_mode():
        made = node.execute(types.SPLAT(**values), **defaults).args[0]
    parts = {"vertices": made.vertices, "faces": made.faces, "colors": made.vertex_colors}
    return {name: value[0].cpu().numpy() for name, value in parts.items()}


if __name__ == "__main__":
    main()
