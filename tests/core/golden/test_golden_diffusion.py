"""Noise levels, preconditioning, guidance, embeddings and mixing, as the official code has them."""

import pytest
import torch

from hi3d_core.diffusion.embeddings import (
    aesthetic_embedding,
    orbit_vector,
    refiner_vector,
    sinusoidal,
)
from hi3d_core.diffusion.guidance import frame_scales, guide
from hi3d_core.diffusion.mixing import mixing_weights, mixing_weights_at
from hi3d_core.diffusion.precondition import v_coefficients
from hi3d_core.diffusion.schedule import edm_sigmas

from .goldens import golden, relative_error, settings

STAGES = ["stage1", "stage2"]


def given(stage, name):
    return golden(f"{stage}/inputs.safetensors", name)


def official(stage, name):
    return golden(f"{stage}/outputs.safetensors", name)


def scales(stage):
    """The guidance of every frame, from the manifest's settings."""
    sampling = settings()["sampling"]
    high = sampling["guider_max_scale"][stage.removeprefix("stage")]
    return frame_scales(sampling["guider_min_scale"], high, sampling["num_frames"])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("steps", [25, 5])
def test_golden_noise_levels(stage, steps):
    sampling = settings()["sampling"]
    sigmas = edm_sigmas(steps, sampling["sigma_min"], sampling["sigma_max"], sampling["rho"])
    assert relative_error(sigmas, official(stage, f"sigmas_{steps}")) < 1e-7
    # The small ones count as much as the large.
    ratio = sigmas[:-1] / official(stage, f"sigmas_{steps}")[:-1]
    assert (ratio - 1).abs().max() < 1e-6


@pytest.mark.parametrize("stage", STAGES)
def test_golden_guidance_scales(stage):
    assert relative_error(scales(stage), official(stage, "guider_scale")) < 1e-7


@pytest.mark.parametrize("stage", STAGES)
def test_golden_denoiser(stage):
    """From the network's recorded raw output to the guided clean sample."""
    unit, network = given(stage, "probe_x_unit"), official(stage, "probe_network")
    for i, sigma in enumerate(given(stage, "probe_sigmas")):
        c_skip, c_out, _, c_noise = v_coefficients(sigma)
        noisy = unit * torch.sqrt(1 + sigma**2)
        denoised = network[i] * c_out + torch.cat([noisy, noisy]) * c_skip
        assert relative_error(c_noise, official(stage, "probe_c_noise")[i]) < 1e-6
        assert relative_error(denoised, official(stage, "probe_denoised")[i]) < 1e-6
        guided = guide(*denoised.chunk(2), scales(stage))
        assert relative_error(guided, official(stage, "probe_guided")[i]) < 1e-6


def test_golden_embeddings():
    aesthetic = aesthetic_embedding(given("stage1", "aes_given_scores"))
    # The angle is up to 600 radians: its rounding alone is 3e-5.
    assert relative_error(aesthetic, official("stage1", "aes_given_vectors")) < 2e-5
    elevations = sinusoidal(given("stage1", "elev_given"), 256)
    assert relative_error(elevations, official("stage1", "elev_given_vectors")) < 1e-5


def test_golden_orbit_vector():
    vector = orbit_vector(
        official("stage1", "aes_score"), given("stage1", "elevation"), given("stage1", "cond_aug")
    )
    assert relative_error(vector, official("stage1", "vector")) < 2e-5
    assert (vector[:, 256:] - official("stage1", "vector")[:, 256:]).abs().max() < 1e-5


def test_golden_refiner_vector():
    vector = refiner_vector(given("stage2", "elevation"), given("stage2", "cond_aug"))
    assert relative_error(vector, official("stage2", "vector")) < 1e-5


@pytest.mark.parametrize("steps", [25, 5])
def test_golden_mixing_weights(steps):
    expected = official("stage2", f"alphas_{steps}")
    for weights in (mixing_weights(steps), mixing_weights_at(edm_sigmas(steps))):
        assert (weights / expected - 1).abs().max() < 1e-6


def mixing(z, noise, weights):
    def before_step(i, x, sigma):
        return (1 - weights[i]) * x + weights[i] * (z + sigma * noise)

    return before_step


def test_golden_first_mixed_latents():
    noise, z = given("stage2", "noise_latents"), official("stage2", "z_list")
    sigma = edm_sigmas(25)[0]
    start = noise * torch.sqrt(1 + sigma**2)
    mixed = mixing(z, noise, mixing_weights(25))(0, start, sigma)
    assert relative_error(mixed, official("stage2", "mixed_step0_25")) < 1e-6
