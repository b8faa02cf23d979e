"""The autoencoder's latents and pictures against the official ones."""

import copy
import json

import pytest
import torch
from torch import nn

from hi3d_core.networks.vae import LATENT_SCALE, VaeConfig, build_vae, decode, encode_moments
from hi3d_core.networks.vae_keys import official_sources, settings_from_official

from ..official_naming import check_map, read_official, shapes_of
from .goldens import golden, need, official_state, relative_error, settings

FLOATS = 1e-4
STAGES = {"stage1": "first_stage.pt", "stage2": "second_stage.pt"}
PREFIXES = ("first_stage_model.", "conditioner.embedders.3.encoder.")
SHOWN = [0, 5, 10, 15]  # decoded frames that were kept


def official_vae(stage, prefix=PREFIXES[0]):
    state = official_state(f"{stage}/{STAGES[stage]}", prefix)
    told = settings_from_official(shapes_of(state))
    return read_official(build_vae, told, official_sources(told), state)


@pytest.fixture(scope="module", params=STAGES)
def loaded(request):
    """(stage, its autoencoder)."""
    return request.param, official_vae(request.param)


def outputs(stage, name):
    return golden(f"{stage}/outputs.safetensors", name)


def clean_frame(stage):
    return (
        outputs(stage, "frame0")[None]
        if stage == "stage1"
        else outputs(stage, "frames")[None, :, 0]
    )


def moments_error(stage, vae):
    moments = torch.cat(encode_moments(vae, clean_frame(stage)), dim=1)
    return relative_error(moments, outputs(stage, "ae_moments_frame0"))


def picture_error(stage, vae, scale=LATENT_SCALE):
    latents = outputs(stage, "final_latents_25")[SHOWN] / scale
    return relative_error(decode(vae, latents), outputs(stage, "decoded_25"))


def test_golden_settings():
    vae, told = (
        settings()["vae"],
        settings_from_official(shapes_of(official_state("stage1/first_stage.pt", PREFIXES[0]))),
    )
    assert told.channels == tuple(vae["ch"] * factor for factor in vae["ch_mult"])
    assert told.layers_per_block == vae["num_res_blocks"]
    assert told.latent_channels == vae["z_channels"]
    assert vae["scale_factor"] == LATENT_SCALE


def test_golden_moments(loaded):
    assert moments_error(*loaded) <= FLOATS


def test_golden_mode(loaded):
    stage, vae = loaded
    mean, _ = encode_moments(vae, clean_frame(stage))
    assert relative_error(mean, outputs(stage, "ae_mode_frame0")) <= FLOATS


def test_golden_decoded_frames(loaded):
    assert picture_error(*loaded) <= FLOATS


@pytest.mark.parametrize("stage", STAGES)
def test_golden_conditioning_latents(stage):
    """Of the noisy pictures, not scaled; by the conditioner's own copy of the network."""
    vae = official_vae(stage, PREFIXES[1])
    if stage == "stage1":  # one picture for all frames
        noisy, official = outputs(stage, "cond_frames"), outputs(stage, "concat")[:1]
    else:
        inputs = "stage2/inputs.safetensors"
        noise = golden(inputs, "noise_cond_aug")[SHOWN]
        noisy = outputs(stage, "frames").transpose(0, 1) + golden(inputs, "cond_aug") * noise
        official = outputs(stage, "concat")[SHOWN, 9:]
    assert relative_error(encode_moments(vae, noisy)[0], official) <= FLOATS


def test_golden_memory_order(loaded):
    """A picture as arrays have it (height, width, channel), where GroupNorm loses digits."""
    stage, vae = loaded
    turned = clean_frame(stage).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    moments = torch.cat(encode_moments(vae, turned), dim=1)
    assert relative_error(moments, outputs(stage, "ae_moments_frame0")) <= FLOATS


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_golden_full_size_map_is_complete(stage, prefix):
    keys = json.loads(need(f"{stage}/{stage}_full_keys.json").read_text())["keys"]
    shapes = {
        name.removeprefix(prefix): tuple(shape)
        for name, shape in keys.items()
        if name.startswith(prefix)
    }
    told = settings_from_official(shapes)
    assert told == VaeConfig()
    assert not check_map(build_vae, told, official_sources(told), shapes)


# Mistakes that ports make; each is put back and must leave the correct error far behind.


def test_golden_trap_group_norm_eps(loaded):
    stage, vae = loaded
    spoilt = copy.deepcopy(vae)
    for module in spoilt.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-5
    assert moments_error(stage, spoilt) > 20 * moments_error(stage, vae)


def test_golden_trap_decoding_scaled_latents(loaded):
    assert picture_error(*loaded, scale=1) > 100 * FLOATS


def test_golden_trap_queries_and_keys_exchanged(loaded):
    stage, vae = loaded
    spoilt = copy.deepcopy(vae)
    attention = spoilt.encoder.mid_block.attentions[0]
    attention.to_q, attention.to_k = attention.to_k, attention.to_q
    assert moments_error(stage, spoilt) > FLOATS
