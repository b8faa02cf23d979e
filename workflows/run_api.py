"""Run an API workflow on a ComfyUI server and fetch its GLBs; wants Python alone.

python run_api.py api/orbit_video_to_mesh.json --out .
"""

# ruff: noqa: T201
import argparse
import json
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

INPUT = Path(__file__).parent / "input"


def upload(server: str, file: Path) -> None:
    """Put a file into the server's input folder, under its place within ours."""
    folder, edge = file.relative_to(INPUT).parent.as_posix(), "-" * 9 + "hi3d"
    form = f'--{edge}\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
    data = (
        form % ("subfolder", "") + folder + "\r\n" + form % ("overwrite", "") + "true\r\n"
    ).encode()
    data += (form % ("image", f'; filename="{file.name}"')).encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    data += file.read_bytes() + f"\r\n--{edge}--\r\n".encode()
    urlopen(Request(f"{server}/upload/image", data, kind)).close()


def run(server: str, graph: dict) -> dict:
    """Upload what the graph reads, queue it, wait; returns what its nodes put out."""
    ours = {file.relative_to(INPUT).as_posix(): file for file in INPUT.rglob("*")}
    named = {str(value) for node in graph.values() for value in node["inputs"].values()}
    for file in [ours[name] for name in named if name in ours]:
        for each in file.iterdir() if file.is_dir() else [file]:
            upload(server, each)
    request = Request(f"{server}/prompt", json.dumps({"prompt": graph}).encode())
    prompt = json.load(urlopen(request))["prompt_id"]
    while not (done := json.load(urlopen(f"{server}/history/{prompt}"))):
        time.sleep(1)
    for kind, said in done[prompt]["status"]["messages"]:
        if kind in {"execution_error", "execution_interrupted"}:
            sys.exit(f"{said['node_type']}: {said.get('exception_message', 'cancelled')}")
    return done[prompt]["outputs"]


def refused(error: HTTPError) -> str:
    """Why the server did not take the graph, in plain words."""
    said = json.loads(error.read() or b"{}")
    lines = [f"the server refused: {said.get('error', {}).get('message', error)}"]
    for node, wrong in said.get("node_errors", {}).items():
        for each in wrong["errors"]:
            lines.append(f"{wrong['class_type']} ({node}): {each['message']}: {each['details']}")
    return "\n".join(lines)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("workflow", type=Path)
    options.add_argument("--server", default="http://127.0.0.1:8188")
    options.add_argument("--out", type=Path, default=".", help="folder for the GLBs")
    given = options.parse_args()
    try:
        outputs = run(given.server, json.loads(given.workflow.read_text(encoding="utf-8")))
        for name in [text for each in outputs.values() for text in each.get("text", [])]:
            folder, _, file = name.rpartition("/")
            if file.endswith(".glb"):
                query = urlencode({"filename": file, "subfolder": folder, "type": "output"})
                (given.out / file).write_bytes(urlopen(f"{given.server}/view?{query}").read())
                print(given.out / file)
    except HTTPError as error:
        sys.exit(refused(error))
    except URLError as error:
        sys.exit(f"no ComfyUI answers at {given.server} ({error.reason}): start it, or --server")
