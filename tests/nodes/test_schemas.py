"""What saved workflows rely on: ids, and inputs that the node's code takes."""

import inspect

import pytest

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
