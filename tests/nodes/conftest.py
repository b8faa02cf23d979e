"""Load the pack as ComfyUI does: by path, under a name that is no package of ours."""

import asyncio
import importlib.util
import os
import sys
from pathlib import Path

import pytest

from ..tools.host import running_host
from . import stand_in

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


@pytest.fixture(params=[False, True], ids=["host", "old host"])
def pack_on_a_stand_in(request, tmp_path):
    """The pack on stand-ins for a host of today and one of old, for what needs no host."""
    output, given = tmp_path / "output", tmp_path / "input"
    output.mkdir()
    given.mkdir()
    made = stand_in.modules(str(output), str(given), old=request.param)
    sys.modules.update(made)
    yield _load_pack("custom_nodes_stand_in")
    _forget("custom_nodes_stand_in")
    for name in made:
        del sys.modules[name]


@pytest.fixture
def node(pack_on_a_stand_in):
    """Node classes by their ids."""
    extension = asyncio.run(pack_on_a_stand_in.comfy_entrypoint())
    return {each.define_schema().node_id: each for each in asyncio.run(extension.get_node_list())}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real ComfyUI with the pack, one for each file of tests."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("set COMFYUI_PATH to a ComfyUI checkout to run this on the real host")
    with running_host(tmp_path_factory.mktemp("server") / "host") as running:
        yield running
