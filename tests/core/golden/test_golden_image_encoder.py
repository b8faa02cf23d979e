"""The image encoder and the aesthetic score against the official ones."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from hi3d_core.networks import aesthetic, image_encoder, image_encoder_keys
from hi3d_core.networks.image_encoder import (
    CLIP_VIT_H,
    build_image_encoder,
    embed_image,
    embed_prepared,
    normalise,
    preprocess_image,
)

from ..official_naming import check_map, read_official, shapes_of
from .goldens import golden, need, official_state, relative_error, settings

FLOATS = 1e-4
OUT = "stage1/outputs.safetensors"
PREFIX, SCORING = "conditioner.embedders.0.open_clip.model.", "conditioner.embedders.1."
STAGES = {"stage1": "first_stage.pt", "stage2": "second_stage.pt"}
ROWS, COLUMNS = slice(None, None, 7), slice(None, None, 5)  # of prepared pictures that were kept


def visual(state):
    return {
        name.removeprefix("visual."): tensor
        for name, tensor in state.items()
        if name.startswith("visual.")
    }


def official_encoder(stage, activation="gelu"):
    state = visual(official_state(f"{stage}/{STAGES[stage]}", PREFIX))
    told = image_encoder_keys.settings_from_official(
        shapes_of(state), settings()["openclip_vision"]["heads"], activation
    )
    sources = image_encoder_keys.official_sources(told)
    return read_official(build_image_encoder, told, sources, state)


@pytest.fixture(scope="module")
def encoder():
    return official_encoder("stage1")


@pytest.fixture(scope="module")
def scorer():
    state = official_state("stage1/first_stage.pt", SCORING)
    told = aesthetic.settings_from_official(
        shapes_of(state), settings()["aesthetic"]["clip"]["heads"]
    )
    sources = aesthetic.official_sources(told)
    return read_official(aesthetic.build_aesthetic, told, sources, state)


@pytest.fixture(scope="module")
def picture():
    array = np.array(Image.open(need("images/clip_512.png")).convert("RGB"), np.float32)
    return torch.from_numpy(array).permute(2, 0, 1)[None] / 255 * 2 - 1


def clean_frame(stage):
    if stage == "stage1":
        return golden(OUT, "frame0")[None]
    return golden("stage2/outputs.safetensors", "frames")[None, :, 0]


def test_golden_settings(encoder):
    told, recorded = encoder.config, settings()["openclip_vision"]
    assert told.hidden_size == recorded["width"]
    assert told.num_hidden_layers == recorded["layers"]
    assert told.patch_size == recorded["patch"]
    assert told.image_size == recorded["image_size"]
    assert told.projection_dim == recorded["embed_dim"]


def test_golden_preprocessing_is_exact(picture):
    ours = preprocess_image(picture)[..., ROWS, COLUMNS]
    assert relative_error(ours, golden(OUT, "clip_preprocess_512")) <= 1e-6


def test_golden_embedding(encoder, picture):
    assert relative_error(embed_image(encoder, picture), golden(OUT, "clip_embed_512")) <= FLOATS


@pytest.mark.parametrize("stage", STAGES)
def test_golden_token(stage):
    official = golden(f"{stage}/outputs.safetensors", "crossattn")
    token = embed_image(official_encoder(stage), clean_frame(stage))[:, None]
    assert relative_error(token, official) <= FLOATS


def test_golden_scoring_input_is_exact(picture):
    prepared = aesthetic.prepare_image(clean_frame("stage1"))
    assert relative_error(prepared, golden(OUT, "aes_clip_input")) <= 1e-6
    prepared = aesthetic.prepare_image(picture)[..., ROWS, COLUMNS]
    assert relative_error(prepared, golden(OUT, "aes_input_512")) <= 1e-6


def test_golden_scoring_embedding(scorer):
    """From the recorded input; before it is brought to length 1."""
    embedding = embed_prepared(scorer.encoder, golden(OUT, "aes_clip_input"))
    assert relative_error(embedding, golden(OUT, "aes_clip_embed")) <= FLOATS


def test_golden_score(scorer, picture):
    score = aesthetic.score(scorer, clean_frame("stage1"))
    assert relative_error(score, golden(OUT, "aes_score")) <= FLOATS
    vector = golden(OUT, "aes_vector_512")  # its first number is the score
    assert relative_error(aesthetic.score(scorer, picture), vector[:, :1]) <= FLOATS


def full_shapes(stage, prefix):
    keys = json.loads(need(f"{stage}/{stage}_full_keys.json").read_text())["keys"]
    return {
        name.removeprefix(prefix): tuple(shape)
        for name, shape in keys.items()
        if name.startswith(prefix)
    }


@pytest.mark.parametrize("stage", STAGES)
def test_golden_full_size_map_is_complete(stage):
    shapes = full_shapes(stage, PREFIX)
    told = image_encoder_keys.settings_from_official(visual(shapes))
    assert told == CLIP_VIT_H
    sources = image_encoder_keys.official_sources(told)
    assert not check_map(build_image_encoder, told, sources, visual(shapes))
    rest = [name for name in shapes if not name.startswith("visual.")]
    assert rest
    assert all(image_encoder_keys.is_known_extra(name) for name in rest)


def test_golden_full_size_scoring_map_is_complete():
    shapes = full_shapes("stage1", SCORING)
    told = aesthetic.settings_from_official(shapes)
    assert told == aesthetic.AESTHETIC
    sources = aesthetic.official_sources(told)
    rest = check_map(aesthetic.build_aesthetic, told, sources, shapes)
    assert rest
    assert all(
        image_encoder_keys.is_known_extra(name.removeprefix("aesthetic_model.")) for name in rest
    )


# Mistakes that ports make; each is put back and must fail.


def test_golden_trap_quick_gelu(picture):
    spoilt = official_encoder("stage1", "quick_gelu")
    assert relative_error(embed_image(spoilt, picture), golden(OUT, "clip_embed_512")) > FLOATS
    official = golden(OUT, "crossattn")
    assert relative_error(embed_image(spoilt, clean_frame("stage1"))[:, None], official) > FLOATS


def resized(picture, blur=False, **how):
    smooth = image_encoder._blur_for(picture, 224) if blur else picture
    return normalise(functional.interpolate(smooth, (224, 224), **how))


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "bicubic", "align_corners": True},
        {"mode": "bicubic", "align_corners": False, "blur": True},
        {"mode": "bicubic", "align_corners": False, "antialias": True},
        {"mode": "bilinear", "align_corners": True, "blur": True},
    ],
    ids=["no blur", "half-pixel corners", "torch's antialias", "bilinear"],
)
def test_golden_trap_resizing(picture, wrong):
    spoilt = resized(picture, **wrong)[..., ROWS, COLUMNS]
    assert relative_error(spoilt, golden(OUT, "clip_preprocess_512")) > FLOATS


def test_golden_trap_exact_gelu_in_the_scorer(scorer):
    spoilt = copy.deepcopy(scorer.encoder)
    for layer in spoilt.vision_model.encoder.layers:
        layer.mlp.activation_fn = nn.GELU()
    embedding = embed_prepared(spoilt, golden(OUT, "aes_clip_input"))
    assert relative_error(embedding, golden(OUT, "aes_clip_embed")) > FLOATS


def test_golden_trap_embedding_of_any_length(scorer):
    embedding = embed_prepared(scorer.encoder, golden(OUT, "aes_clip_input"))
    assert relative_error(scorer.head(embedding), golden(OUT, "aes_score")) > FLOATS


def test_golden_trap_aspect_kept(scorer):
    """Resized to the square at once, as CLIP is usually fed."""
    square = functional.interpolate(clean_frame("stage1"), (224, 224), mode="bilinear")
    assert relative_error(normalise(square), golden(OUT, "aes_clip_input")) > FLOATS
