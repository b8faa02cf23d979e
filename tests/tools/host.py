"""A real ComfyUI server with the pack linked in, for tools and tests.

COMFYUI_PATH names the checkout; COMFYUI_PYTHON the Python it is installed for, with the pack's
requirements, if that isn't this one.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
INPUT = ROOT / "workflows" / "input"
# The frontend without its welcome, its map and its counters.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # text also where it is tiny
}


class Server:
    """A running host, with its folders below `base`."""

    def __init__(self, base: Path, port: int, log: Path) -> None:
        self.base, self.log, self.url = base, log, f"http://127.0.0.1:{port}"

    def read(self, path: str) -> bytes:
        """What the host answers."""
        with urllib.request.urlopen(self.url + path, timeout=60) as reply:
            return bytes(reply.read())

    def get(self, path: str) -> Any:
        """The same, as JSON."""
        return json.loads(self.read(path) or b"null")

    def post(self, path: str, data: dict[str, Any]) -> Any:
        """What the host answers to data, also where it refuses them."""
        request = urllib.request.Request(
            self.url + path, json.dumps(data).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as error:
            return json.loads(error.read() or b"null")

    def queue(self, graph: dict[str, Any]) -> str:
        """Queue an API workflow; returns its id. Raises AssertionError if any node is refused."""
        answer = self.post("/prompt", {"prompt": graph})
        assert answer.get("node_errors") == {}, answer
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, seconds: float = 600) -> dict[str, Any]:
        """What the host's history says once the workflow has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            history = self.get(f"/history/{prompt_id}")
            if history and history[prompt_id]["status"].get("completed") is not None:
                return dict(history[prompt_id])
            time.sleep(0.3)
        raise AssertionError(f"not done after {seconds} s:\n{self.log.read_text()[-3000:]}")


@contextmanager
def running_host(base: Path, checkpoints: tuple[str, ...] = ()) -> Iterator[Server]:
    """A host below the new folder `base`, its input folder being a copy of workflows/input.

    checkpoints: names of empty files, for lists that should hold them.
    """
    named = os.environ.get("COMFYUI_PATH")
    if not named:
        raise SystemExit("set COMFYUI_PATH to a ComfyUI checkout, COMFYUI_PYTHON to its Python")
    host = Path(named)
    (base / "custom_nodes").mkdir(parents=True)
    (base / "custom_nodes" / "hi3d").symlink_to(ROOT)
    shutil.copytree(INPUT, base / "input")
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(SETTINGS))
    for name in checkpoints:
        file = base / "models" / "checkpoints" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = base / "log.txt"
    command = [
        *(os.environ.get("COMFYUI_PYTHON", sys.executable), str(host / "main.py")),
        *("--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(base)),
        # Without its API nodes the host also forbids its 3D viewer to read a GLB's texture.
        *("--database-url", "sqlite:///:memory:", "--disable-auto-launch"),
    ]
    # What is on our path is not for the host.
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTEST_VERSION"}}
    (base / "scratch").mkdir()
    environment["TMPDIR"] = str(base / "scratch")  # where a test sees what was left
    with log.open("w") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=base)
    try:
        server = Server(base, port, log)
        _wait_until_ready(server, running)
        yield server
    finally:
        running.terminate()
        running.wait(20)


def _wait_until_ready(server: Server, running: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if running.poll() is not None:
            break
        try:
            server.get("/system_stats")
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the host does not answer:\n{server.log.read_text()[-3000:]}")
