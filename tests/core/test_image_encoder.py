import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from hi3d_core.networks import image_encoder_keys
from hi3d_core.networks.image_encoder import (
    CLIP_VIT_H,
    CLIP_VIT_L,
    ImageEncoderConfig,
    build_image_encoder,
    embed_image,
    preprocess_image,
)

from . import clip_twin
from .official_naming import read_official, shapes_of, to_official
from .tiny_models import filled

TINY = ImageEncoderConfig(
    width=32, layers=2, heads=4, patch=8, image_size=32, embedding=12, activation="gelu"
)
MEAN = np.float64([0.48145466, 0.4578275, 0.40821073])[:, None, None]
DEVIATION = np.float64([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)


def random_encoder(settings, seed=1):
    return filled(build_image_encoder(settings), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_it_computes_what_openclip_does(activation):
    settings = ImageEncoderConfig(**{**vars(TINY), "activation": activation})
    encoder = random_encoder(settings)
    official = to_official(encoder, image_encoder_keys.official_sources(settings))
    images = random(3, 3, 50, 40)
    function = {"gelu": functional.gelu, "quick_gelu": clip_twin.quick_gelu}[activation]
    expected = clip_twin.encode(official, preprocess_image(images, 32), 4, function)
    ours = embed_image(encoder, images)
    assert ours.shape == (3, 12)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_official_naming_round_trip():
    encoder = random_encoder(TINY)
    sources = image_encoder_keys.official_sources(TINY)
    official = to_official(encoder, sources)
    assert official["proj"].shape == (32, 12)
    assert official["transformer.resblocks.1.attn.in_proj_weight"].shape == (96, 32)
    assert image_encoder_keys.settings_from_official(shapes_of(official), heads=4) == TINY
    ours = shapes_of(encoder.state_dict())
    assert image_encoder_keys.settings_from_diffusers(ours, heads=4) == TINY
    again = read_official(build_image_encoder, TINY, sources, official)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    images = random(1, 3, 40, 40)
    assert torch.equal(embed_image(again, images), embed_image(encoder, images))


def test_names_are_those_of_published_folders():
    """Such as `image_encoder/model.safetensors` of Stable Video Diffusion."""
    names = set(random_encoder(TINY).state_dict())
    layer = "vision_model.encoder.layers.0."
    both = [
        "vision_model.pre_layrnorm",
        "vision_model.post_layernorm",
        *(f"{layer}self_attn.{each}_proj" for each in ("q", "k", "v", "out")),
        *(f"{layer}{each}" for each in ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")),
    ]
    assert {name for name in names if ".layers.1." not in name} == {
        *(f"{name}.{kind}" for name in both for kind in ("weight", "bias")),
        "vision_model.embeddings.class_embedding",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
        "visual_projection.weight",
    }


@pytest.mark.parametrize(
    ("settings", "parameters"), [(CLIP_VIT_H, 632_076_800), (CLIP_VIT_L, 303_966_208)]
)
def test_released_sizes(settings, parameters):
    with torch.device("meta"):
        encoder = build_image_encoder(settings)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters
    told = image_encoder_keys.settings_from_diffusers(
        shapes_of(encoder.state_dict()), activation=settings.activation
    )
    assert told == settings


def reflected(index, length):
    index = abs(index)
    return index if index < length else 2 * (length - 1) - index


def resized_slowly(image, size):
    """Of one channel (H, W): Gaussian blur with the edge pixel as mirror, then Keys' bicubic."""
    for _ in range(2):  # down the columns, then (transposed) along the rows
        length = len(image)
        factor = length / size
        if max(image.shape) > size:
            sigma = max((factor - 1) / 2, 0.001)
            reach = int(max(4 * sigma, 3)) // 2
            weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-reach, reach + 1)]
            rows = [
                sum(w * image[reflected(i + k - reach, length)] for k, w in enumerate(weights))
                for i in range(length)
            ]
            image = np.stack(rows) / sum(weights)
        image = image.T
    for _ in range(2):
        length = len(image)
        rows = []
        for i in range(size):
            place = i * (length - 1) / (size - 1)
            base = math.floor(place)
            near = [image[min(max(base + k, 0), length - 1)] for k in (-1, 0, 1, 2)]
            rows.append(sum(keys(place - base - k) * n for k, n in enumerate(near, -1)))
        image = np.stack(rows).T
    return image


def keys(x, a=-0.75):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


@pytest.mark.parametrize("shape", [(51, 37), (80, 80), (13, 10), (50, 12), (20, 16)])
def test_resizing_is_blur_and_bicubic(shape):
    images = random(2, 3, *shape)
    ours = preprocess_image(images, 16)
    slow = np.stack(
        [[resized_slowly(channel, 16) for channel in image] for image in images.double().numpy()]
    )
    expected = ((slow + 1) / 2 - MEAN) / DEVIATION
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-5)


def test_a_picture_of_the_right_size_is_only_normalised():
    images = random(1, 3, 24, 24)
    expected = ((images.double().numpy() + 1) / 2 - MEAN) / DEVIATION
    np.testing.assert_allclose(preprocess_image(images, 24).numpy(), expected, atol=1e-6)


def test_half_precision_is_resized_in_single():
    images = random(1, 3, 50, 50).half()
    assert torch.equal(preprocess_image(images, 16), preprocess_image(images.float(), 16))


def test_it_works_in_the_number_format_of_its_weights():
    images = random(2, 3, 40, 40)
    encoder = random_encoder(TINY)
    exact = embed_image(encoder, images)
    coarse = embed_image(encoder.bfloat16(), images.bfloat16())
    assert coarse.dtype == torch.bfloat16
    assert (coarse.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_inputs_stay_as_they_are():
    images = random(1, 3, 24, 24)
    before = images.clone()
    preprocess_image(images, 24)
    embed_image(random_encoder(TINY), images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 4, 32, 32), (1, 3, 1, 32)])
def test_bad_images_are_refused(shape):
    with pytest.raises(ValueError, match="expected"):
        preprocess_image(torch.zeros(shape))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="5 heads"):
        ImageEncoderConfig(**{**vars(TINY), "heads": 5})
    with pytest.raises(ValueError, match="'relu', expected 'gelu'"):
        ImageEncoderConfig(**{**vars(TINY), "activation": "relu"})
    with pytest.raises(ValueError, match=r"conv1\.weight is missing"):
        image_encoder_keys.settings_from_official({})


def test_the_text_half_is_known():
    assert image_encoder_keys.is_known_extra("transformer.resblocks.3.ln_1.weight")
    assert image_encoder_keys.is_known_extra("logit_scale")
    assert not image_encoder_keys.is_known_extra("visual.conv1.weight")
