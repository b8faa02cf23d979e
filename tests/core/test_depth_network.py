import copy
import dataclasses
import json

import pytest
import torch
from transformers import DPTForDepthEstimation

from hi3d_core.networks import depth_network_keys
from hi3d_core.networks.depth_network import (
    DPT_HYBRID,
    DepthConfig,
    build_depth_network,
    estimate,
)

from .official_naming import read_official, shapes_of, to_official
from .tiny_models import TINY_DEPTH as TINY
from .tiny_models import filled


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def network():
    network = filled(build_depth_network(TINY), torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.head.head[4].bias.fill_(20)  # so that the last ReLU does not hide differences
    return network


def test_it_is_transformers_network_at_the_size_that_that_takes(network):
    images = random(1, 3, 64, 64)
    stock = DPTForDepthEstimation.forward(network, images).predicted_depth
    ours = estimate(network, images)
    assert ours.shape == (1, 64, 64)
    assert float(ours.std()) > 0.01
    torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 64), (64, 160)])
def test_any_multiple_of_32_is_a_size(network, height, width):
    images = random(2, 3, height, width)
    maps = estimate(network, images)
    assert maps.shape == (2, height, width)
    assert float(maps.min()) >= 0
    torch.testing.assert_close(estimate(network, images[1:]), maps[1:], rtol=1e-4, atol=1e-4)


def test_it_works_in_the_number_format_of_its_weights(network):
    images = random(1, 3, 64, 32)
    exact = estimate(network, images)
    coarse = estimate(copy.deepcopy(network).bfloat16(), images.bfloat16())
    assert coarse.dtype == torch.bfloat16
    assert (coarse.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_tokens_keep_their_places_in_a_wide_picture(network):
    """A change in the right half must change the map most in the right half."""
    images = random(1, 3, 32, 256)
    other = images.clone()
    other[..., 224:] *= -1
    change = (estimate(network, images) - estimate(network, other)).abs()[0]
    assert change[:, 192:].mean() > 3 * change[:, :128].mean()


def test_positions_are_resized_bilinearly(network):
    positions = network.dpt.embeddings.position_embeddings
    grid = positions[0, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    wide = torch.nn.functional.interpolate(grid, (2, 6), mode="bilinear")
    images, entered = random(1, 3, 32, 96), []
    hook = network.dpt.encoder.layer[0].register_forward_pre_hook(
        lambda _, inputs: entered.append(inputs[0])
    )
    with torch.no_grad():
        estimate(network, images)
        kept = positions.clone()
        positions.zero_()
        estimate(network, images)
        positions.copy_(kept)
    hook.remove()
    added = entered[0] - entered[1]
    expected = torch.cat([positions[:, :1], wide.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(added, expected, rtol=1e-4, atol=1e-4)


def test_official_naming_round_trip(network):
    sources = depth_network_keys.official_sources(TINY)
    official = to_official(network, sources)
    assert official["pretrained.model.blocks.3.attn.qkv.weight"].shape == (96, 32)
    told = depth_network_keys.settings_from_official(shapes_of(official), heads=2)
    assert told == TINY
    ours = shapes_of(network.state_dict())
    assert depth_network_keys.settings_from_diffusers(ours, heads=2) == TINY
    again = read_official(build_depth_network, TINY, sources, official)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    images = random(1, 3, 64, 32)
    assert torch.equal(estimate(again, images), estimate(network, images))


def test_what_a_round_trip_can_not_see():
    sources = depth_network_keys.official_sources(TINY)
    query, key, value = (
        sources[f"dpt.encoder.layer.1.attention.attention.{name}.bias"]
        for name in ("query", "key", "value")
    )
    assert query.name == key.name == value.name == "pretrained.model.blocks.1.attn.qkv.bias"
    assert [query.part, key.part, value.part] == [(0, 3), (1, 3), (2, 3)]
    coarsest = sources["neck.fusion_stage.layers.0.residual_layer2.convolution1.weight"]
    assert coarsest.name == "scratch.refinenet4.resConfUnit2.conv1.weight"
    assert sources["neck.convs.0.weight"].name == "scratch.layer1_rn.weight"


def test_names_are_those_of_published_folders():
    """Such as `pytorch_model.bin` of Intel's dpt-hybrid-midas, which transformers 4 wrote."""
    names = set(build_depth_network(TINY).state_dict())
    for name in (
        "dpt.embeddings.cls_token",
        "dpt.embeddings.position_embeddings",
        "dpt.embeddings.backbone.bit.embedder.convolution.weight",
        "dpt.embeddings.backbone.bit.encoder.stages.0.layers.0.downsample.conv.weight",
        "dpt.encoder.layer.0.attention.attention.query.weight",
        "dpt.encoder.layer.0.layernorm_before.weight",
        "dpt.layernorm.weight",
        "neck.reassemble_stage.readout_projects.2.0.weight",
        "neck.reassemble_stage.layers.3.resize.weight",
        "neck.convs.0.weight",
        "neck.fusion_stage.layers.0.residual_layer1.convolution1.weight",
        "head.head.4.bias",
    ):
        assert name in names


def test_the_released_network_needs_no_memory_and_no_download_to_be_built():
    with torch.device("meta"):
        network = build_depth_network()
    parameters = list(network.parameters())
    assert all(parameter.is_meta for parameter in parameters)
    classifier = 1000 * 768 + 1000  # in MiDaS' file, and needed by no one
    assert sum(parameter.numel() for parameter in parameters) == 123_146_985 - classifier
    assert depth_network_keys.settings_from_diffusers(shapes_of(network.state_dict())) == DPT_HYBRID
    assert DPT_HYBRID.tapped_layers == (8, 11)


def test_settings_survive_a_files_metadata():
    assert DepthConfig(**json.loads(json.dumps(dataclasses.asdict(TINY)))) == TINY


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 64, 40), "40 x 64 pixels, expected multiples of 32"),
        ((1, 3, 0, 32), "multiples of 32"),
        ((3, 64, 64), r"\(N, 3, height, width\)"),
        ((1, 1, 64, 64), r"\(N, 3, height, width\)"),
    ],
)
def test_bad_images_are_refused(network, shape, message):
    with pytest.raises(ValueError, match=message):
        estimate(network, torch.zeros(shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage_channels": (128, 128)}, "expected three"),
        ({"stage_channels": (128, 96, 128)}, "multiples of 32 and of 128"),
        ({"heads": 3}, "multiple of heads"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


def test_missing_tensors_are_named():
    with pytest.raises(ValueError, match=r"pos_embed is missing.*depth network"):
        depth_network_keys.settings_from_official({})
    assert depth_network_keys.is_known_extra("pretrained.model.head.weight")
    assert not depth_network_keys.is_known_extra("pretrained.model.norm.weight")
