"""Load the pack as ComfyUI does: by path, under a name that is no package of ours."""

import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _load_pack(name: str):
    spec = importlib.util.spec_from_file_location(
        name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    pack = importlib.util.module_from_spec(spec)
    sys.modules[name] = pack
    spec.loader.exec_module(pack)
    return pack


def _forget(prefix: str) -> None:
    for name in [n for n in sys.modules if n == prefix or n.startswith(prefix + ".")]:
        del sys.modules[name]


@pytest.fixture
def pack_on_a_stand_in():
    """The pack on the two names it takes from the host, for what needs no host to be tested."""
    io = types.SimpleNamespace(Custom=lambda name: name, ComfyNode=object)
    latest = types.ModuleType("comfy_api.latest")
    latest.io, latest.ComfyExtension = io, object
    package = types.ModuleType("comfy_api")
    package.latest = latest
    sys.modules.update({"comfy_api": package, "comfy_api.latest": latest})
    yield _load_pack("custom_nodes_stand_in")
    _forget("custom_nodes_stand_in")
    _forget("comfy_api")


@pytest.fixture
def pack_on_the_host():
    """The pack on a real ComfyUI checkout, named by COMFYUI_PATH."""
    host = os.environ.get("COMFYUI_PATH")
    if not host:
        pytest.skip("set COMFYUI_PATH to a ComfyUI checkout to run this on the real host")
    sys.path.insert(0, host)
    yield _load_pack("custom_nodes_real")
    _forget("custom_nodes_real")
    sys.path.remove(host)
