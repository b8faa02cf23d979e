"""Take the snapshot of a host's /object_info that the workflows are tested against.

    COMFYUI_PATH=... COMFYUI_PYTHON=... python -m tests.tools.take_object_info

Writes tests/nodes/object_info/<host version>.json: the pack's nodes and those of the host that
the workflows use. Lists of files hold what the workflows name, since the host is started with
just these files.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from .host import ROOT, running_host

API = ROOT / "workflows" / "api"
SNAPSHOTS = ROOT / "tests" / "nodes" / "object_info"
CHECKPOINTS = ("v1-5-pruned-emaonly-fp16.safetensors",)
# What the tests and comfy-cli read; the rest differs from host to host and says nothing of use.
KEPT = (
    *("input", "input_order", "is_input_list", "output", "output_is_list", "output_name", "name"),
    *("display_name", "category", "output_node"),
)


def main() -> None:
    """Start the host, ask it, write what it said."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_host(Path(folder) / "host", CHECKPOINTS) as server,
    ):
        version = server.get("/system_stats")["system"]["comfyui_version"]
        info = server.get("/object_info")
    wanted = {name for name in info if name.startswith("Hi3D")} | classes_used()
    missing = wanted - set(info)
    if missing:
        print(f"host {version} has no {', '.join(sorted(missing))}: workflows with them won't run")
    kept = {name: _cut(info[name]) for name in sorted(wanted - missing)}
    SNAPSHOTS.mkdir(exist_ok=True)
    file = SNAPSHOTS / f"{version}.json"
    file.write_text(_as_text(kept))
    print(f"{file}: {len(kept)} nodes, {file.stat().st_size} bytes")


def classes_used() -> set[str]:
    """The node classes that the workflows name."""
    return {
        node["class_type"]
        for file in API.glob("*.json")
        for node in json.loads(file.read_text(encoding="utf-8")).values()
    }


def _cut(entry: dict[str, Any]) -> dict[str, Any]:
    kept = {key: entry[key] for key in KEPT if key in entry}
    kept["input"] = {
        kind: {name: _without_tooltip(given) for name, given in inputs.items()}
        for kind, inputs in kept["input"].items()
        if kind != "hidden"
    }
    kept["input_order"] = {kind: list(inputs) for kind, inputs in kept["input"].items()}
    return kept


def _without_tooltip(given: Any) -> Any:
    if isinstance(given, list) and len(given) > 1 and isinstance(given[1], dict):
        return [given[0], {key: value for key, value in given[1].items() if key != "tooltip"}]
    return given


def _as_text(info: dict[str, Any]) -> str:
    """JSON with an input a line."""
    text = json.dumps(info, indent=1, ensure_ascii=False)

    def joined(found: re.Match[str]) -> str:
        return re.sub(r"\s*\n\s*", " ", found[0])

    # Lists that hold no objects, then inputs.
    text = re.sub(r"\[[^\[\]{}]*\]", joined, text)
    return re.sub(r"\[\s*(?:\"[^\"]*\"|\[[^\[\]]*\])(?:,\s*\{[^{}]*\})?\s*\]", joined, text) + "\n"


if __name__ == "__main__":
    main()
