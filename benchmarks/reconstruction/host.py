"""ComfyUI's own "Extract Mesh from Splat" as a baseline, where `COMFYUI_PATH` names a host.

The host runs in a process of its own, under `COMFYUI_PYTHON` (the Python that it is installed
for) or else this one, on the CPU. The node takes a splat's +Y for down and turns its mesh about
X; that is undone here, so that the mesh lies where the splat does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from hi3d_core.datatypes import Gaussians, Mesh
from hi3d_core.srgb import linear_to_srgb

from .skipped import Skipped


def extract_with_host(splat: Gaussians) -> Mesh:
    """The node's mesh of a splat, with its vertex colours, in the splat's world.

    Raises Skipped if there is no host or it has no such node, RuntimeError if it fails.
    """
    host = os.environ.get("COMFYUI_PATH")
    if not host:
        raise Skipped("COMFYUI_PATH is not set: it names a ComfyUI checkout to compare with")
    if not Path(host).is_dir():
        raise Skipped(f"COMFYUI_PATH is {host}, which is no folder")
    with tempfile.TemporaryDirectory() as scratch:
        given, made = Path(scratch) / "splat.npz", Path(scratch) / "mesh.npz"
        np.savez(
            given,
            positions=splat.means.numpy(),
            scales=splat.scales.numpy(),
            rotations=splat.quaternions.numpy(),
            opacities=splat.opacities.numpy()[:, None],
            sh=splat.sh.numpy(),
        )
        script = Path(__file__).with_name("host_node.py")
        python = os.environ.get("COMFYUI_PYTHON", sys.executable)
        # What is on our path is not for the host.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [python, str(script), host, str(given), str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(
                f"the host failed ({last}): set COMFYUI_PYTHON to the Python it is installed for"
            )
        with np.load(made) as parts:
            if "missing" in parts:
                raise Skipped(f"{parts['missing']} ({_version(Path(host))})")
            return mesh_from_host(parts["vertices"], parts["faces"], parts["colors"])


def mesh_from_host(vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray) -> Mesh:
    """The node's arrays as our mesh: turned back by half a turn about X, colours as shown."""
    turned = vertices.astype(np.float32) * np.array([1, -1, -1], np.float32)
    linear = torch.from_numpy(colors[:, :3].astype(np.float32)).clamp(0, 1)
    return Mesh(
        torch.from_numpy(turned),
        torch.from_numpy(faces.astype(np.int64)),
        vertex_colors=linear_to_srgb(linear).clamp(0, 1),
    )


def _version(host: Path) -> str:
    file = host / "comfyui_version.py"
    lines = file.read_text().splitlines() if file.is_file() else []
    named = (line.split("=")[1].strip(' "') for line in lines if line.startswith("__version__"))
    return "ComfyUI " + next(named, "of unknown version")
