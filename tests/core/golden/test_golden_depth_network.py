"""DPT-hybrid against the official one, of full size with random weights."""

import json
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch.nn import functional

from hi3d_core.networks import depth_network_keys
from hi3d_core.networks.depth_network import DPT_HYBRID, build_depth_network, estimate

from ..official_naming import check_map, read_official, shapes_of
from .goldens import golden, need, relative_error

FLOATS = 1e-4
IO = "dpt/io.safetensors"
PREFIX = "conditioner.embedders.2.model.model."


@pytest.fixture(scope="module")
def network():
    state = torch.load(need("dpt/dpt_hybrid_384.pt"), map_location="cpu", weights_only=True)
    told = depth_network_keys.settings_from_official(shapes_of(state))
    sources = depth_network_keys.official_sources(told)
    return read_official(build_depth_network, told, sources, state).float()


def error(network, name):
    return relative_error(
        estimate(network, golden(IO, f"{name}.input")), golden(IO, f"{name}.raw_depth")
    )


@pytest.mark.parametrize("name", ["a", "b"], ids=["square", "not square"])
def test_golden_depth(network, name):
    assert error(network, name) <= FLOATS


def test_golden_depth_at_the_real_size(network):
    images = functional.interpolate(golden(IO, "c.lowres"), (384, 384), mode="bicubic")
    depth = estimate(network, images.clamp(-1, 1))
    assert relative_error(depth[:, ::4, ::4], golden(IO, "c.raw_depth")) <= FLOATS


def test_golden_activations(network):
    stages = network.dpt.embeddings.backbone.bit.encoder.stages
    layers = network.dpt.encoder.layer
    seen = {}
    hooks = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: seen.update(
                {name: output[0] if isinstance(output, tuple) else output}
            )
        )
        for name, module in (
            ("act1", stages[0]),
            ("act2", stages[1]),
            ("act3", layers[8]),
            ("act4", layers[11]),
        )
    ]
    estimate(network, golden(IO, "a.input"))
    for hook in hooks:
        hook.remove()
    for name, activation in seen.items():
        official = golden(IO, f"a.{name}")
        assert relative_error(activation[:1, ..., : official.shape[-1]], official) <= FLOATS, name


def test_golden_full_size_map_is_complete():
    keys = json.loads(need("stage2/stage2_full_keys.json").read_text())["keys"]
    shapes = {
        name.removeprefix(PREFIX): tuple(shape)
        for name, shape in keys.items()
        if name.startswith(PREFIX)
    }
    told = depth_network_keys.settings_from_official(shapes)
    assert told == DPT_HYBRID
    sources = depth_network_keys.official_sources(told)
    rest = check_map(build_depth_network, told, sources, shapes)
    assert rest == {"pretrained.model.head.weight", "pretrained.model.head.bias"}
    assert all(depth_network_keys.is_known_extra(name) for name in rest)


# Mistakes that ports make; each is put back and must fail.


@contextmanager
def replaced(module, **attributes):
    """The network is large, so it is spoilt in place and mended."""
    before = {name: getattr(module, name) for name in attributes}
    for name, value in attributes.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def test_golden_trap_other_layers_tapped(network, monkeypatch):
    monkeypatch.setattr(type(DPT_HYBRID), "tapped_layers", (7, 11))
    assert error(network, "a") > FLOATS


def test_golden_trap_corners_not_aligned(network):
    with ExitStack() as stack:
        for layer in network.neck.fusion_stage.layers:
            stack.enter_context(replaced(layer, align_corners=False))
        assert error(network, "a") > FLOATS


def test_golden_trap_symmetric_padding(network):
    """The ResNet's first convolution pads as TensorFlow does: less before than after."""
    stem = network.dpt.embeddings.backbone.bit.embedder.convolution
    with replaced(stem, pad=None, padding=(3, 3)):
        assert error(network, "a") > FLOATS
