"""The pack on a real ComfyUI server, driven over its API as a script would.

Runs where COMFYUI_PATH names a checkout; see tests/tools/host.py.
"""

import json
import time

import pytest

from ..tools.host import ROOT
from .orbit_graph import POSED, VIEWS

pytestmark = pytest.mark.slow

GRAPH = {
    **VIEWS,
    "5": {
        "class_type": "Hi3DNeusMesher",
        "inputs": {
            **{**POSED, "quality": "preview"},
            **{"face_budget": 5000, "texture_size": 256, "align": True, "seed": 0},
            **{"refine_cameras": False},
        },
    },
    "6": {
        "class_type": "Hi3DGlbExporter",
        "inputs": {
            **{"mesh": ["5", 0], "filename_prefix": "hi3d/horse", "format": "GLB"},
            "embed_workflow": True,
        },
    },
}


def test_the_host_loads_the_pack_without_a_warning(server):
    from .test_schemas import IDS

    info = server.get("/object_info")
    assert [name for name in info if name.startswith("Hi3D")] == IDS
    lines = server.log.read_text().splitlines()
    assert not [line for line in lines if "hi3d" in line.lower() and "IMPORT FAILED" in line]
    assert not [line for line in lines if "hi3d" in line.lower() and "warning" in line.lower()]
    labels = server.get("/i18n")["en"]["nodeDefs"]
    for name in IDS:
        assert labels[name]["display_name"] == info[name]["display_name"]
        page = (ROOT / "web" / "docs" / f"{name}.md").read_bytes()
        assert server.read(f"/extensions/hi3d/docs/{name}.md") == page


def test_an_orbit_video_becomes_a_glb(server):
    done = server.wait(server.queue(GRAPH))
    assert done["status"]["status_str"] == "success", server.log.read_text()[-3000:]
    (name,) = done["outputs"]["6"]["text"]
    file = server.base / "output" / name
    assert file.read_bytes()[:4] == b"glTF"
    from hi3d_core.read.mesh_file import read_meshes

    (mesh,) = read_meshes(file)
    assert 1000 < len(mesh.faces) <= 5000
    assert mesh.texture.shape[0] == 256
    assert not [each for each in (server.base / "output").rglob(".*") if each.is_file()]
    # The same again is not run again.
    again = server.wait(server.queue(GRAPH))
    cached = next(data for kind, data in again["status"]["messages"] if kind == "execution_cached")
    assert "5" in cached["nodes"]


def test_cancelling_the_mesher_ends_it_and_the_next_run_is_clean(server):
    graph = json.loads(json.dumps(GRAPH))
    graph["5"]["inputs"].update(seed=1, quality="standard")
    prompt_id = server.queue(graph)
    time.sleep(8)
    assert server.get("/queue")["queue_running"]
    began = time.monotonic()
    server.post("/interrupt", {})
    done = server.wait(prompt_id, 30)
    assert time.monotonic() - began < 10
    assert any(kind == "execution_interrupted" for kind, _ in done["status"]["messages"])
    graph["5"]["inputs"].update(seed=2, quality="preview")
    assert server.wait(server.queue(graph))["status"]["status_str"] == "success"


def test_an_error_says_what_to_do(server):
    graph = json.loads(json.dumps(GRAPH))
    graph["4"]["inputs"]["count"] = 12
    done = server.wait(server.queue(graph))
    errors = [data for kind, data in done["status"]["messages"] if kind == "execution_error"]
    assert "16 in IMAGE" in errors[0]["exception_message"]
    assert errors[0]["node_id"] == "5"
