"""Write locales/en/nodeDefs.json, the nodes' labels and tooltips for ComfyUI's translators.

The host shows these words in place of the schemas' own, so both must say the same: run this after
any change of a schema. A test compares. Needs no host: the pack is loaded on stand-ins.

    python tests/tools/write_labels.py
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "locales" / "en" / "nodeDefs.json"
_PACK = "custom_nodes_labels"


def schemas() -> dict[str, Any]:
    """The schemas by node id, as a host of today gets them."""
    stand_in = _module("hi3d_labels_stand_in", ROOT / "tests" / "nodes" / "stand_in.py")
    before = dict(sys.modules)
    with tempfile.TemporaryDirectory() as folder:
        output, given = Path(folder) / "output", Path(folder) / "input"
        sys.modules.update(stand_in.modules(str(output), str(given)))
        try:
            pack = _module(_PACK, ROOT / "__init__.py", [str(ROOT)])
            extension = asyncio.run(pack.comfy_entrypoint())
            found = [each.define_schema() for each in asyncio.run(extension.get_node_list())]
        finally:
            for name in [n for n in sys.modules if n.split(".")[0] == _PACK]:
                del sys.modules[name]
            for name in stand_in.modules(str(output), str(given)):
                del sys.modules[name]
                if name in before:
                    sys.modules[name] = before[name]
    return {each.node_id: each for each in found}


def labels(found: dict[str, Any]) -> dict[str, Any]:
    """The host's format: inputs by id, outputs by index."""
    return {
        node_id: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {
                each.id: _label(getattr(each, "display_name", None) or each.id, each)
                for each in schema.inputs
            },
            "outputs": {
                str(index): _label(each.display_name, each)
                for index, each in enumerate(schema.outputs)
            },
        }
        for node_id, schema in found.items()
    }


def as_text(found: dict[str, Any]) -> str:
    """The file's text."""
    return json.dumps(labels(found), indent=2, ensure_ascii=False) + "\n"


def _label(name: str, socket: Any) -> dict[str, str]:
    tooltip = getattr(socket, "tooltip", None)
    return {"name": name, "tooltip": tooltip} if tooltip else {"name": name}


def _module(name: str, file: Path, folders: list[str] | None = None) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=folders)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(as_text(schemas()), encoding="utf-8")
    print(FILE)
