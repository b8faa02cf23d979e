import copy
import dataclasses
import json

import pytest
import torch
from torch.nn import functional

from hi3d_core.networks import aesthetic
from hi3d_core.networks.aesthetic import (
    AESTHETIC,
    AestheticConfig,
    build_aesthetic,
    prepare_image,
    score,
)

from . import clip_twin
from .official_naming import read_official, shapes_of, to_official
from .tiny_models import filled

TINY = AestheticConfig(
    width=64,
    layers=2,
    heads=1,
    patch=8,
    image_size=28 * 2,
    embedding=24,
    activation="quick_gelu",
    head=(20, 10, 5, 4, 1),
)
VISUAL, MLP = "aesthetic_model.visual.", "aesthetic_mlp.layers."


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def network():
    return filled(build_aesthetic(TINY), torch.Generator().manual_seed(1))


def test_it_computes_what_the_official_layers_do(network):
    state = to_official(network, aesthetic.official_sources(TINY))
    visual = {
        name.removeprefix(VISUAL): tensor
        for name, tensor in state.items()
        if name.startswith(VISUAL)
    }
    images = random(2, 3, 70, 70)
    stretched = functional.interpolate(images, (56, 96), mode="bilinear", align_corners=False)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    prepared = ((stretched[..., 20:76] + 1) / 2 - mean) / deviation
    x = clip_twin.encode(visual, prepared, 1, clip_twin.quick_gelu)
    x = x / x.norm(dim=-1, keepdim=True)
    for layer in (0, 2, 4, 6, 7):
        x = functional.linear(x, state[f"{MLP}{layer}.weight"], state[f"{MLP}{layer}.bias"])
    ours = score(network, images)
    assert ours.shape == (2, 1)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)


def test_official_naming_round_trip(network):
    sources = aesthetic.official_sources(TINY)
    official = to_official(network, sources)
    assert sum(name.startswith(MLP) for name in official) == 10
    assert aesthetic.settings_from_official(shapes_of(official)) == TINY
    assert aesthetic.settings_from_ours(shapes_of(network.state_dict())) == TINY
    again = read_official(build_aesthetic, TINY, sources, official)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_the_length_of_the_embedding_does_not_count(network):
    images = random(1, 3, 60, 60)
    before = score(network, images)
    with torch.no_grad():
        network.encoder.visual_projection.weight *= 8
        scaled = score(network, images)
        network.encoder.visual_projection.weight /= 8
    torch.testing.assert_close(scaled, before)


def test_it_works_in_the_number_format_of_its_weights(network):
    images = random(1, 3, 60, 60)
    coarse = score(copy.deepcopy(network).bfloat16(), images.bfloat16())
    assert coarse.dtype == torch.bfloat16
    torch.testing.assert_close(coarse.float(), score(network, images), rtol=0.05, atol=0.05)


def test_released_settings_are_told_from_shapes():
    with torch.device("meta"):
        network = build_aesthetic()
    assert aesthetic.settings_from_ours(shapes_of(network.state_dict())) == AESTHETIC


def test_settings_survive_a_files_metadata():
    values = json.loads(json.dumps(dataclasses.asdict(TINY)))
    assert AestheticConfig(**values) == TINY


def test_the_picture_is_stretched_and_its_sides_cut_off():
    columns = torch.arange(384).expand(1, 3, 224, 384) / 383 * 2 - 1
    cut = prepare_image(columns)
    first = cut[0, 0, 0, 0] * 0.26862954 + 0.48145466
    last = cut[0, 0, 0, -1] * 0.26862954 + 0.48145466
    torch.testing.assert_close(torch.stack([first, last]), torch.tensor([80 / 383, 303 / 383]))
    square = random(1, 3, 100, 100)
    hidden = square.clone()
    hidden[..., :19], hidden[..., 81:] = 0, 0  # outside columns 80 / 384 to 304 / 384, and a margin
    assert torch.equal(prepare_image(square), prepare_image(hidden))
    assert not torch.equal(prepare_image(square), prepare_image(square.flip(2)))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32)])
def test_bad_images_are_refused(network, shape):
    with pytest.raises(ValueError, match="expected"):
        score(network, torch.zeros(shape))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="the last of them 1"):
        dataclasses.replace(TINY, head=(20, 2))
    with pytest.raises(ValueError, match="is missing"):
        aesthetic.settings_from_official({})
