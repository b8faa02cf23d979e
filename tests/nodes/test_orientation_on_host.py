"""What we hand to ComfyUI's own 3D nodes stands upright and faces the viewer there too.

Runs where COMFYUI_PATH names a checkout; see tests/tools/host.py.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d_core.metrics import psnr
from hi3d_core.read.mesh_file import read_meshes
from hi3d_core.read.source import read_views

from ..tools.host import INPUT
from .orbit_graph import POSED, VIEWS
from .test_long_runs_on_host import ended

pytestmark = pytest.mark.slow

# Camera 1 of the example orbit, in the words of the host's node for cameras.
CAMERA = {
    "class_type": "CreateCameraInfo",
    "inputs": {
        **{"mode": "orbit", "mode.yaw": 22.5, "mode.pitch": 10.0, "mode.distance": 1.5},
        **{"target_x": 0.0, "target_y": 0.0, "target_z": 0.0, "roll": 0.0, "fov": 49.134},
        **{"zoom": 1.0, "camera_type": "perspective"},
    },
}


def test_the_hosts_splat_renderer_shows_what_the_camera_saw(server):
    if "RenderSplat" not in server.get("/object_info"):
        pytest.skip("this ComfyUI has no Render Splat: it is too old to know splats")
    graph = {
        **VIEWS,
        "5": {
            "class_type": "Hi3DGaussianSplatInterpolator",
            "inputs": {**POSED, "between": 0, "steps": 200, "count": 6000, "seed": 0},
        },
        "6": CAMERA,
        "7": {
            "class_type": "RenderSplat",
            "inputs": {
                **{"splat": ["5", 3], "camera_info": ["6", 0], "width": 256, "height": 256},
                **{"frames": 1, "splat_scale": 1.0, "sharpen": 1.0, "headlight_shading": 0.0},
                **{"opacity_threshold": 0.0, "render_style": "color", "background": "#ffffff"},
            },
        },
        "8": {
            "class_type": "SaveImage",
            "inputs": {"images": ["7", 0], "filename_prefix": "splat"},
        },
    }
    done = ended(server, server.queue(graph))
    (saved,) = done["outputs"]["8"]["images"]
    with Image.open(server.base / "output" / saved["filename"]) as file:
        drawn = torch.from_numpy(np.asarray(file.convert("RGB"), np.float32) / 255)
    seen = read_views(INPUT / "horse_orbit.mp4", elevation_degrees=10.0, max_size=256).images[1]
    right = psnr(drawn, seen)
    # Mirrored, upside down, or seen from behind it would be at most 17 dB.
    assert right > 22
    assert right > psnr(drawn.flip(1), seen) + 5 and right > psnr(drawn.flip(0), seen) + 5


def test_the_hosts_glb_stands_as_ours_does(server):
    graph = {
        **VIEWS,
        "5": {
            "class_type": "Hi3DNeusMesher",
            "inputs": {
                **{**POSED, "quality": "preview", "face_budget": 3000, "texture_size": 256},
                **{"align": True, "refine_cameras": False, "seed": 0},
            },
        },
        "6": {"class_type": "SaveGLB", "inputs": {"mesh": ["5", 0], "filename_prefix": "theirs"}},
        "7": {
            "class_type": "Hi3DGlbExporter",
            "inputs": {
                **{"mesh": ["5", 0], "filename_prefix": "ours", "format": "GLB"},
                "embed_workflow": True,
            },
        },
    }
    ended(server, server.queue(graph))
    (theirs,), (ours,) = (
        read_meshes(next((server.base / "output").glob(f"{name}*.glb")))
        for name in ("theirs", "ours")
    )
    assert torch.allclose(theirs.vertices, ours.vertices, atol=1e-6)
    assert torch.equal(theirs.faces, ours.faces)
    # Upright: the horse's feet are below its back; and its head is towards the first camera.
    low = ours.vertices[ours.vertices[:, 1] < -0.3]
    assert len(low) > 20 and float(ours.vertices[:, 1].max()) > 0.3
    if theirs.texture is not None:  # older hosts' meshes have none
        assert theirs.texture.shape == ours.texture.shape
        assert float((theirs.texture - ours.texture).abs().mean()) < 0.01
        assert torch.allclose(theirs.uvs, ours.uvs, atol=1e-6)
