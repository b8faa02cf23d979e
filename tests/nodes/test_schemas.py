"""What saved workflows rely on: ids, and inputs that the node's code takes."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from hi3d_core.pipeline import QUALITIES
from hi3d_core.render import SHADINGS
from hi3d_core.splat.fit import STANDARD

ROOT = Path(__file__).parents[2]

IDS = [
    "Hi3DLoader",
    "Hi3DPrepareImage",
    "Hi3DOrbitVideoSampler",
    "Hi3DDepthEstimator",
    "Hi3DVideoRefiner",
    "Hi3DOrbitCameras",
    "Hi3DGaussianSplatInterpolator",
    "Hi3DNeusMesher",
    "Hi3DTextureBaker",
    "Hi3DMeshRenderer",
    "Hi3DGlbExporter",
    "Hi3DImageTo3D",
    "Hi3DLoadViews",
]


def test_ids_are_permanent(node):
    assert list(node) == IDS


@pytest.mark.parametrize("name", IDS)
def test_every_input_is_explained_and_taken(node, name):
    schema = node[name].define_schema()
    assert schema.category == "Hi3D" and schema.display_name.startswith("Hi3D ")
    assert len(schema.description) > 40
    taken = inspect.signature(node[name].execute).parameters
    assert set(taken) == {each.id for each in schema.inputs}
    for each in schema.inputs:
        assert len(each.tooltip) > 15, each.id
        if getattr(each, "optional", False):
            assert taken[each.id].default is None
        if each.io_type in {"INT", "FLOAT"}:
            assert each.min <= each.default <= each.max, each.id
        if each.io_type == "COMBO":
            assert getattr(each, "default", each.options[0]) in each.options
    assert all(each.display_name for each in schema.outputs)


def _input(node, name, field):
    return next(each for each in node[name].define_schema().inputs if each.id == field)


def test_what_schemas_repeat_is_the_librarys(node):
    """Schemas don't import it, so that ComfyUI starts as fast with the pack as without."""
    for name in ("Hi3DNeusMesher", "Hi3DImageTo3D"):
        assert _input(node, name, "quality").options == list(QUALITIES)
    assert _input(node, "Hi3DMeshRenderer", "shading").options == [*SHADINGS, "shape"]
    splat = {
        name: _input(node, "Hi3DGaussianSplatInterpolator", name) for name in ("steps", "count")
    }
    assert splat["steps"].default == STANDARD.iterations
    assert splat["count"].default == STANDARD.count


def test_loading_the_pack_brings_no_heavy_library():
    code = """
import asyncio, importlib.util, sys, tempfile, torch
from pathlib import Path
root = Path(sys.argv[1])
before = set(sys.modules)
def load(name, file, **settings):
    spec = importlib.util.spec_from_file_location(name, file, **settings)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
stand_in = load("stand_in", root / "tests/nodes/stand_in.py")
with tempfile.TemporaryDirectory() as folder:
    for name in ("output", "input"):
        (Path(folder) / name).mkdir()
    sys.modules.update(stand_in.modules(folder + "/output", folder + "/input"))
    pack = load("pack", root / "__init__.py", submodule_search_locations=[str(root)])
    extension = asyncio.run(pack.comfy_entrypoint())
    for node in asyncio.run(extension.get_node_list()):
        node.define_schema()
new = {name.split(".")[0] for name in set(sys.modules) - before}
heavy = {"numba", "scipy", "skimage", "trimesh", "xatlas", "diffusers", "kornia", "av"}
print(*sorted(new & heavy))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
