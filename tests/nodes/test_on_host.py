"""The pack on a real ComfyUI server, driven over its API as a script would.

Runs where COMFYUI_PATH names a checkout; COMFYUI_PYTHON names the Python it is installed for, with
the pack's requirements, if that isn't this one.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow

GRAPH = {
    "1": {"class_type": "LoadVideo", "inputs": {"file": "horse_orbit.mp4"}},
    "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
    "3": {
        "class_type": "Hi3DPrepareImage",
        "inputs": {"image": ["2", 0], "framing": "keep", "size": 512, "foreground_ratio": 0.85},
    },
    "4": {
        "class_type": "Hi3DOrbitCameras",
        "inputs": {
            **{"count": 16, "elevation": 10.0, "radius": 1.5, "fov": 49.134},
            **{"direction": "counter-clockwise", "start_azimuth": 0.0, "transforms": ""},
        },
    },
    "5": {
        "class_type": "Hi3DNeusMesher",
        "inputs": {
            **{"image": ["3", 0], "mask": ["3", 1], "cameras": ["4", 0], "quality": "preview"},
            **{"face_budget": 5000, "texture_size": 256, "align": True, "seed": 0},
            **{"refine_cameras": False},
        },
    },
    "6": {
        "class_type": "Hi3DGlbExporter",
        "inputs": {"mesh": ["5", 0], "filename_prefix": "hi3d/horse", "format": "GLB"},
    },
}


class Server:
    """A running host, with its folders below `base`."""

    def __init__(self, base: Path, port: int, log: Path) -> None:
        self.base, self.log, self._url = base, log, f"http://127.0.0.1:{port}"

    def read(self, path: str) -> bytes:
        with urllib.request.urlopen(self._url + path, timeout=20) as reply:
            return reply.read()

    def get(self, path: str) -> dict:
        return json.loads(self.read(path) or b"null")

    def post(self, path: str, data: dict) -> dict:
        request = urllib.request.Request(
            self._url + path, json.dumps(data).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as error:
            return json.loads(error.read())

    def queue(self, graph: dict) -> str:
        reply = self.post("/prompt", {"prompt": graph})
        assert reply.get("node_errors") == {}, reply
        return reply["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 300) -> dict:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            history = self.get(f"/history/{prompt_id}")
            if history and history[prompt_id]["status"].get("completed") is not None:
                return history[prompt_id]
            time.sleep(0.3)
        raise AssertionError(f"not done after {seconds} s:\n{self.log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    host = os.environ.get("COMFYUI_PATH")
    if not host:
        pytest.skip("set COMFYUI_PATH to a ComfyUI checkout to run this on the real host")
    base = tmp_path_factory.mktemp("host")
    (base / "custom_nodes").mkdir()
    (base / "input").mkdir()
    (base / "custom_nodes" / "hi3d").symlink_to(ROOT)
    shutil.copy(ROOT / "examples" / "horse_orbit.mp4", base / "input")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = base / "log.txt"
    command = [
        *(os.environ.get("COMFYUI_PYTHON", sys.executable), str(Path(host) / "main.py")),
        *("--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(base)),
        *("--database-url", "sqlite:///:memory:", "--disable-auto-launch", "--disable-api-nodes"),
    ]
    # What is on our path is not for the host.
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTEST_VERSION"}}
    with log.open("w") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=base)
    try:
        found = Server(base, port, log)
        for _ in range(600):
            if running.poll() is not None:
                raise AssertionError(f"the host ended:\n{log.read_text()[-3000:]}")
            try:
                found.get("/system_stats")
                break
            except OSError:
                time.sleep(0.2)
        yield found
    finally:
        running.terminate()
        running.wait(20)


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
