"""The bundled workflows on a real ComfyUI server, queued over its API.

Runs where COMFYUI_PATH names a checkout; see tests/tools/host.py.
"""

import copy
import json
import shutil
import subprocess
import sys
from urllib.request import urlopen

import pytest

from hi3d_core.metrics import psnr
from hi3d_core.read.mesh_file import read_meshes
from hi3d_core.read.source import read_views
from hi3d_core.render import render_mesh

from ..tools.host import INPUT, ROOT
from ..tools.small_settings import small
from ..tools.workflow_layouts import LAYOUTS, WITHOUT_MODELS

pytestmark = pytest.mark.slow

API = ROOT / "workflows" / "api"
RUN = ROOT / "workflows" / "run_api.py"
TOOLS = ROOT / "tests" / "tools"
# What each was made from, and the least PSNR of its renders against that: 38.5 to 39.7 were
# measured, at most 22 with two cameras swapped, a wrong elevation or the wrong direction.
VIEWS = {
    "orbit_video_to_mesh": (INPUT / "horse_orbit.mp4", 10.0, 34),
    "posed_photos_to_mesh": (INPUT / "posed_views", None, 34),
    "retexture_mesh": (INPUT / "horse_orbit.mp4", 10.0, 34),
}


def api(name):
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def leftovers(server):
    """Files that a run should have taken away again."""
    hidden = [each for each in (server.base / "output").rglob(".*") if each.is_file()]
    scratch = [each for each in (server.base / "scratch").rglob("*") if each.is_file()]
    return hidden + scratch + list((server.base / "output").rglob("*.tmp"))


def validator_says(file):
    """The Khronos validator's messages; none where it isn't installed."""
    if shutil.which("node") is None or not (TOOLS / "node_modules" / "gltf-validator").is_dir():
        return []
    command = ["node", str(TOOLS / "validate_gltf.mjs"), str(file)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["messages"]


@pytest.mark.parametrize("name", WITHOUT_MODELS)
def test_a_workflow_without_models_ends_with_a_good_mesh(server, name):
    done = server.wait(server.queue(small(api(name))))
    assert done["status"]["status_str"] == "success", done["status"]
    named = [text for each in done["outputs"].values() for text in each.get("text", [])]
    (glb,) = [server.base / "output" / text for text in named if text.endswith(".glb")]
    assert validator_says(glb) == []
    assert leftovers(server) == []
    (mesh,) = read_meshes(glb)
    source, elevation, least = VIEWS[name]
    views = read_views(source, elevation_degrees=elevation, max_size=256)
    drawn = render_mesh(mesh, views.cameras)
    assert psnr(drawn.images, views.images) > least
    # Its pictures move: an animated WebP has a chunk for each frame.
    for each in done["outputs"].values():
        for picture in each.get("images", []) if each.get("animated") else []:
            file = server.base / "output" / picture["subfolder"] / picture["filename"]
            assert file.read_bytes().count(b"ANMF") >= 16


FROM_A_PICTURE = sorted(set(LAYOUTS) - set(WITHOUT_MODELS) - {"text_to_3d"})


@pytest.mark.parametrize("name", FROM_A_PICTURE)
def test_without_files_a_workflow_paints_with_the_small_model(server, name):
    done = server.wait(server.queue(small(api(name))), seconds=1500)
    assert done["status"]["status_str"] == "success", done["status"]
    named = [text for each in done["outputs"].values() for text in each.get("text", [])]
    files = [server.base / "output" / text for text in named if text.endswith(".glb")]
    assert len(files) == (3 if name == "three_seeds" else 1)
    for glb in files:
        assert validator_says(glb) == []
        assert len(read_meshes(glb)[0].faces) > 1000
    assert "hi3d-tiny" in server.log.read_text()


@pytest.mark.parametrize("name", FROM_A_PICTURE)
def test_without_one_of_its_models_a_workflow_says_what_to_put_where(server, name):
    second = server.base / "models" / "hi3d" / "second_stage.pt"
    second.parent.mkdir(parents=True, exist_ok=True)
    second.touch()
    try:
        done = server.wait(server.queue(api(name)))
    finally:
        second.unlink()
    (error,) = [data for kind, data in done["status"]["messages"] if kind == "execution_error"]
    assert error["node_type"] in {"Hi3DOrbitVideoSampler", "Hi3DImageTo3D"}
    for part in ("first_stage.pt", "GB", "models/hi3d", "does not stand in for one stage alone"):
        assert part in error["exception_message"], error["exception_message"]


def test_the_host_lists_them_with_their_pictures(server):
    listed = server.get("/workflow_templates")["hi3d"]
    assert set(listed) == set(LAYOUTS)
    for name in listed:
        for suffix in ("json", "jpg"):
            with urlopen(f"{server.url}/api/workflow_templates/hi3d/{name}.{suffix}") as reply:
                assert reply.read() == (ROOT / "workflows" / f"{name}.{suffix}").read_bytes()


def run_api(*arguments):
    return subprocess.run(
        [sys.executable, str(RUN), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_script_uploads_queues_and_fetches(server, tmp_path):
    shutil.rmtree(server.base / "input" / "posed_views", ignore_errors=True)
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps(small(api("posed_photos_to_mesh"))))
    done = run_api(graph, "--server", server.url, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (glb,) = tmp_path.glob("*.glb")
    assert str(glb) in done.stdout
    (mesh,) = read_meshes(glb)
    assert len(mesh.faces) > 1000
    uploaded = server.base / "input" / "posed_views"
    assert {each.name for each in uploaded.iterdir()} == {
        each.name for each in (INPUT / "posed_views").iterdir()
    }


def test_the_script_says_in_plain_words_what_is_wrong(server, tmp_path):
    good = small(api("orbit_video_to_mesh"))
    file = tmp_path / "graph.json"

    def said(change, url=server.url):
        graph = copy.deepcopy(good)
        change(graph)
        file.write_text(json.dumps(graph))
        done = run_api(file, "--server", url, "--out", tmp_path)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr

    assert "Hi3DOrbitCameras (4)" in said(lambda g: g["4"]["inputs"].update(count=0))
    assert "12 in CAMERAS" in said(lambda g: g["4"]["inputs"].update(count=12))
    assert "no ComfyUI answers" in said(lambda g: None, "http://127.0.0.1:9")
    assert not list(tmp_path.glob("*.glb"))
