"""Both diffusion stages, from picture to frames, against the official code's recorded tensors."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d_core.orbit import OrbitConfig, orbit_conditioning
from hi3d_core.refine import (
    RefineConfig,
    depth_channels,
    encode_coarse,
    enlarge,
    mix_in,
    refiner_conditioning,
)
from hi3d_core.sample_options import SampleOptions
from hi3d_core.video_sampling import decode_frames, sample_latents
from hi3d_core.weights.load import load_video_model

from .goldens import golden, need, relative_error, settings

LATENTS = 1e-5
FLOATS = 1e-4

ORBIT_IN, ORBIT_OUT = "stage1/inputs.safetensors", "stage1/outputs.safetensors"
REFINE_IN, REFINE_OUT = "stage2/inputs.safetensors", "stage2/outputs.safetensors"


def head_channels():
    equivalent = settings()["diffusers_equivalent"]
    return equivalent["block_out_channels"][0] // equivalent["num_attention_heads"][0]


def guidance(stage):
    sampling = settings()["sampling"]
    return sampling["guider_min_scale"], sampling["guider_max_scale"][stage]


def load(path, stage):
    unseen = {
        "unet": {"head_channels": head_channels()},
        "image_encoder": {"heads": settings()["openclip_vision"]["heads"]},
        "aesthetic": {"heads": settings()["aesthetic"]["clip"]["heads"]},
    }
    return load_video_model(need(path), stage, unseen=unseen)


@pytest.fixture(scope="module")
def orbit_model():
    return load("stage1/first_stage.pt", "orbit")


@pytest.fixture(scope="module")
def refiner_model():
    return load("stage2/second_stage.pt", "refiner")


@pytest.fixture(scope="module")
def orbit_condition(orbit_model):
    config = OrbitConfig(size=settings()["image_px"]["stage1"])
    return orbit_conditioning(
        orbit_model,
        golden(ORBIT_OUT, "frame0")[None],
        float(golden(ORBIT_IN, "elevation")),
        config,
        golden(ORBIT_IN, "noise_cond_aug"),
    )


@pytest.fixture(scope="module")
def coarse_images():
    """The enlarged coarse frames, (F, 3, S, S) in [-1, 1], as the official code made them."""
    frames = golden(REFINE_IN, "coarse_frames").float() / 255
    white = np.asarray(Image.open(need("images/white.png")).convert("RGB"))
    config = RefineConfig(size=settings()["image_px"]["stage2"])
    return enlarge(frames, torch.from_numpy(white.astype(np.float32) / 255), config)


@pytest.fixture(scope="module")
def refiner_condition(refiner_model, coarse_images):
    return refiner_conditioning(
        refiner_model,
        coarse_images,
        float(golden(REFINE_IN, "elevation")),
        RefineConfig(size=settings()["image_px"]["stage2"]),
        golden(REFINE_IN, "noise_cond_aug"),
        golden(REFINE_IN, "midas_raw"),
    )


def trajectory(model, condition, noise, steps, guidance, before_step=None, options=None):
    """Latents after each of the Euler steps, and those that entered each step."""
    after, entering = [], []

    def watch(index, x, sigma):
        if index:
            after.append(x.clone())
        x = x if before_step is None else before_step(index, x, sigma)
        entering.append(x.clone())
        return x

    last = sample_latents(
        model,
        condition,
        noise,
        solver="euler",
        steps=steps,
        guidance=guidance,
        options=options or SampleOptions(guide_at_once=True),
        before_step=watch,
    )
    return [*after, last], entering


@pytest.fixture(scope="module")
def orbit_run(orbit_model, orbit_condition):
    return trajectory(
        orbit_model,
        orbit_condition,
        golden(ORBIT_IN, "noise_latents"),
        settings()["sampling"]["num_steps"],
        guidance("1"),
    )[0]


def refiner_trajectory(model, condition, images, steps):
    config = RefineConfig(size=settings()["image_px"]["stage2"])
    coarse = encode_coarse(model, images, golden(REFINE_IN, "noise_posterior"), config)
    noise = golden(REFINE_IN, "noise_latents")
    return trajectory(
        model, condition, noise, steps, guidance("2"), mix_in(coarse, noise, config, steps)
    )


@pytest.fixture(scope="module")
def refiner_run(refiner_model, refiner_condition, coarse_images):
    return refiner_trajectory(
        refiner_model, refiner_condition, coarse_images, settings()["sampling"]["num_steps"]
    )


@pytest.mark.parametrize("name", ["vector", "crossattn", "concat"])
def test_golden_orbit_condition(orbit_condition, name):
    ours = {
        "vector": orbit_condition.vector,
        "crossattn": orbit_condition.context,
        "concat": orbit_condition.concat,
    }[name]
    assert relative_error(ours, golden(ORBIT_OUT, name)) <= FLOATS


@pytest.mark.parametrize("name", ["vector", "crossattn", "concat"])
def test_golden_refiner_condition(refiner_condition, name):
    ours = {
        "vector": refiner_condition.vector,
        "crossattn": refiner_condition.context,
        "concat": refiner_condition.concat,
    }[name]
    assert relative_error(ours, golden(REFINE_OUT, name)) <= FLOATS


def test_golden_enlarged_frames_are_exact(coarse_images):
    official = golden(REFINE_OUT, "frames").permute(1, 0, 2, 3)
    shown = coarse_images[[0, 5, 10, 15]]
    assert relative_error(shown, official) <= 1e-6


def test_golden_coarse_latents(refiner_model, coarse_images):
    config = RefineConfig(size=settings()["image_px"]["stage2"])
    noise = golden(REFINE_IN, "noise_posterior")
    ours = encode_coarse(refiner_model, coarse_images, noise, config)
    assert relative_error(ours, golden(REFINE_OUT, "z_list")) <= FLOATS


def test_golden_depth_channels_are_exact():
    official = golden(REFINE_OUT, "concat")[:, :9]
    ours = depth_channels(golden(REFINE_IN, "midas_raw"), *official.shape[2:])
    assert torch.equal(ours, official)


def test_golden_orbit_trajectory(orbit_run):
    official = golden(ORBIT_OUT, "traj_25")
    for step, latents in zip(golden(ORBIT_OUT, "traj_25_steps").tolist(), official, strict=True):
        assert relative_error(orbit_run[step], latents) <= LATENTS


def test_golden_orbit_latents(orbit_run):
    assert relative_error(orbit_run[-1], golden(ORBIT_OUT, "final_latents_25")) <= LATENTS


def test_golden_refiner_trajectory(refiner_run):
    after, entering = refiner_run
    official = golden(REFINE_OUT, "traj_25")
    for step, latents in zip(golden(REFINE_OUT, "traj_25_steps").tolist(), official, strict=True):
        assert relative_error(after[step], latents) <= LATENTS
    for step in (0, 8):
        official_mixed = golden(REFINE_OUT, f"mixed_step{step}_25")
        assert relative_error(entering[step], official_mixed) <= LATENTS


def test_golden_refiner_latents(refiner_run):
    official = golden(REFINE_OUT, "final_latents_25")
    assert relative_error(refiner_run[0][-1], official) <= LATENTS


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_golden_decoded_frames(request, stage):
    """Latents to pictures; 8-bit values may differ by 1 in under 0.1% of the places."""
    model = request.getfixturevalue("orbit_model" if stage == "stage1" else "refiner_model")
    out = f"{stage}/outputs.safetensors"
    official = golden(out, "video_25").int()
    shown = [0, 5, 10, 15]
    frames = decode_frames(model, golden(out, "final_latents_25")[shown], SampleOptions())
    difference = ((frames * 255).round().int() - official).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).float().mean()) < 1e-3


def test_golden_guidance_in_two_calls_gives_the_same(orbit_model, orbit_condition):
    noise = golden(ORBIT_IN, "noise_latents")
    run, _ = trajectory(
        orbit_model,
        orbit_condition,
        noise,
        5,
        guidance("1"),
        options=SampleOptions(guide_at_once=False, feed_forward_chunks=2),
    )
    official = golden(ORBIT_OUT, "traj_5")
    for step, latents in zip(golden(ORBIT_OUT, "traj_5_steps").tolist(), official, strict=True):
        assert relative_error(run[step], latents) <= LATENTS


# Mistakes that ports of this model make. Each is put back, and must leave the tolerance far behind.


def five_steps(model, condition, noise, guidance):
    return trajectory(model, condition, noise, 5, guidance)[0][-1]


def test_golden_trap_scaled_condition(orbit_model, orbit_condition):
    scaled = dataclasses.replace(orbit_condition, concat=orbit_condition.concat * 0.18215)
    noise = golden(ORBIT_IN, "noise_latents")
    ours = five_steps(orbit_model, scaled, noise, guidance("1"))
    assert relative_error(ours, golden(ORBIT_OUT, "final_latents_5")) > 100 * LATENTS


def test_golden_trap_elevation_off_by_one(orbit_model, orbit_condition):
    config = OrbitConfig(size=settings()["image_px"]["stage1"])
    off = orbit_conditioning(
        orbit_model,
        golden(ORBIT_OUT, "frame0")[None],
        float(golden(ORBIT_IN, "elevation")) + 1,
        config,
        golden(ORBIT_IN, "noise_cond_aug"),
    )
    noise = golden(ORBIT_IN, "noise_latents")
    ours = five_steps(orbit_model, off, noise, guidance("1"))
    assert relative_error(ours, golden(ORBIT_OUT, "final_latents_5")) > 10 * LATENTS


def test_golden_trap_depth_in_the_unconditional_branch(
    monkeypatch, refiner_model, refiner_condition, coarse_images
):
    from hi3d_core import conditioning

    def keeps_depth(concat):
        return torch.cat([concat[:, :9], torch.zeros_like(concat[:, 9:])], dim=1)

    monkeypatch.setattr(conditioning, "without_condition", keeps_depth)
    after, _ = refiner_trajectory(refiner_model, refiner_condition, coarse_images, 5)
    assert relative_error(after[-1], golden(REFINE_OUT, "final_latents_5")) > 100 * LATENTS


def test_golden_trap_no_latent_mixing(refiner_model, refiner_condition):
    noise = golden(REFINE_IN, "noise_latents")
    ours = five_steps(refiner_model, refiner_condition, noise, guidance("2"))
    assert relative_error(ours, golden(REFINE_OUT, "final_latents_5")) > 100 * LATENTS


def test_golden_five_steps(
    orbit_model, orbit_condition, refiner_model, refiner_condition, coarse_images
):
    """Without any mistake, the very comparisons of the traps hold."""
    noise = golden(ORBIT_IN, "noise_latents")
    ours = five_steps(orbit_model, orbit_condition, noise, guidance("1"))
    assert relative_error(ours, golden(ORBIT_OUT, "final_latents_5")) <= LATENTS
    after, _ = refiner_trajectory(refiner_model, refiner_condition, coarse_images, 5)
    assert relative_error(after[-1], golden(REFINE_OUT, "final_latents_5")) <= LATENTS
