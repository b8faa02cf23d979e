import copy
import dataclasses
import gc
import math

import pytest
import torch

from hi3d_core.metrics import psnr
from hi3d_core.orbit import OrbitConfig, generate_orbit, orbit_conditioning
from hi3d_core.sample_options import SampleOptions
from hi3d_core.video_sampling import sample_latents

from .tiny_models import tiny_model

SIZE = 64


@pytest.fixture(scope="module")
def model():
    return tiny_model("orbit")


def picture():
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    inside = ((x - 30) ** 2 + (y - 34) ** 2 < 400).float()[..., None]
    return inside * torch.tensor([0.8, 0.3, 0.1]) + (1 - inside)


def make(model, elevation=10.0, seed=0, on_step=None, on_preview=None, **settings):
    return generate_orbit(
        model,
        picture(),
        elevation,
        OrbitConfig(**{"size": SIZE, "steps": 2, **settings}),
        generator=torch.Generator().manual_seed(seed),
        on_step=on_step,
        on_preview=on_preview,
    )


def live_bytes():
    gc.collect()
    # By type: asking some lazy objects for their class would run them.
    tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values()
    )


def test_frames_are_eight_bit_pictures(model):
    frames = make(model)
    assert frames.shape == (16, SIZE, SIZE, 3)
    assert float(frames.min()) >= 0 and float(frames.max()) <= 1
    assert torch.equal((frames * 255).round() / 255, frames)


def test_a_seed_gives_one_orbit_and_another_seed_another(model):
    assert torch.equal(make(model, seed=3), make(model, seed=3))
    assert not torch.equal(make(model, seed=3), make(model, seed=4))


@pytest.mark.parametrize(
    "change",
    [
        {"elevation": 11.0},
        {"guidance": (1.0, 3.0)},
        {"cond_aug": 0.1},
        {"aesthetic_score": 4.0},
        {"steps": 3},
        {"solver": "fast"},
    ],
)
def test_every_input_counts(model, change):
    assert not torch.equal(make(model), make(model, **change))


@pytest.mark.parametrize(
    "options",
    [
        SampleOptions(guide_at_once=True),
        SampleOptions(guide_at_once=False),
        SampleOptions(frames_at_once=5),
        SampleOptions(feed_forward_chunks=1),
    ],
)
def test_options_that_save_memory_change_nothing(model, options):
    difference = (make(model, options=options) - make(model)).abs()
    assert float(difference.max()) <= 1 / 255 + 1e-6
    assert float((difference > 0).float().mean()) < 1e-3


def test_feature_reuse_changes_little_but_something(model):
    whole = make(model, steps=6)
    reused = make(model, steps=6, options=SampleOptions(reuse_every=2))
    assert not torch.equal(whole, reused)
    assert torch.equal(whole, make(model, steps=6, options=SampleOptions(reuse_every=1)))


def test_feature_reuse_is_the_same_for_guidance_together_and_apart(model):
    """Each branch keeps features of its own."""
    together, apart = (
        make(model, steps=4, options=SampleOptions(reuse_every=2, guide_at_once=at_once))
        for at_once in (True, False)
    )
    assert float((together - apart).abs().max()) <= 1 / 255 + 1e-6


def test_progress_ends_at_its_total_and_previews_are_pictures(model):
    told, shown = [], []
    make(model, on_step=lambda *step: told.append(step), on_preview=shown.append)
    done = [step for step, _ in told]
    assert done == sorted(done) and told[0][0] == 0
    assert told[-1] == (1 + 2 + 16, 1 + 2 + 16)
    assert len(shown) == 2
    for preview in shown:
        assert preview.shape == (16, SIZE // 8, SIZE // 8, 3)
        assert float(preview.min()) >= 0 and float(preview.max()) <= 1


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("when", [0, 1, 2, 5])
def test_cancelling_ends_within_a_step_and_frees_everything(model, when):
    told = []

    def stop(done, total):
        told.append(done)
        if done >= when:
            raise Cancelled

    before = live_bytes()
    with pytest.raises(Cancelled):
        make(model, on_step=stop)
    assert told[-1] == when
    assert live_bytes() == before


def test_a_finished_run_leaves_only_its_frames(model):
    before = live_bytes()
    frames = make(model)
    assert live_bytes() == before + frames.untyped_storage().nbytes()


def test_inputs_are_not_changed(model):
    given = picture()
    kept = given.clone()
    weights = [parameter.clone() for parameter in model.unet.parameters()]
    generate_orbit(
        model,
        given,
        0.0,
        OrbitConfig(size=SIZE, steps=1),
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(given, kept)
    assert all(map(torch.equal, weights, model.unet.parameters()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"elevation": math.nan}, "elevation"),
        ({"size": 100}, "multiple of 64"),
        ({"size": 128}, "64 x 64"),
        ({"steps": 0}, "steps"),
        ({"solver": "best"}, "solver"),
        ({"aesthetic_score": math.inf}, "aesthetic"),
        ({"cond_aug": -0.02}, "cond_aug"),
    ],
)
def test_bad_input_is_refused(model, settings, message):
    with pytest.raises(ValueError, match=message):
        make(model, **settings)


def test_the_refiner_is_refused():
    with pytest.raises(ValueError, match="refiner model, expected the orbit model"):
        make(tiny_model("refiner"))


def test_the_network_is_compiled_if_wished(model, monkeypatch):
    compiled = []

    def note(network):
        compiled.append(network)
        return network

    monkeypatch.setattr(torch, "compile", note)
    frames = make(model, options=SampleOptions(compiled=True))
    assert compiled == [model.unet]
    assert torch.equal(frames, make(model))
    assert len(compiled) == 1


def test_networks_that_overflow_are_told_not_shown(model):
    broken = dataclasses.replace(model, unet=copy.deepcopy(model.unet))
    broken.unet.conv_out.bias.data.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match=r"UNet gave values .* fp32"):
        make(broken)
    vae = copy.deepcopy(model.vae)
    vae.quant_conv.bias.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="encoding in the autoencoder"):
        make(dataclasses.replace(model, conditioning_vae=vae))
    vae = copy.deepcopy(model.vae)
    vae.decoder.conv_out.bias.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="decoding in the autoencoder"):
        make(dataclasses.replace(model, vae=vae))


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 55), (torch.bfloat16, 45)])
def test_half_precision_paints_the_same_orbit(model, dtype, least):
    networks = [copy.deepcopy(each) for each in (model.unet, model.vae, model.image_encoder)]
    for network in networks:
        torch.nn.Module.to(network, dtype)
    unet, vae, encoder = networks
    half = dataclasses.replace(
        model, unet=unet, vae=vae, conditioning_vae=vae, image_encoder=encoder
    )
    assert float(psnr(make(half, steps=5), make(model, steps=5))) > least


def test_a_seed_draws_the_latents_too(model):
    """Not only the noise on the picture, which is off here."""
    assert not torch.equal(make(model, seed=3, cond_aug=0.0), make(model, seed=4, cond_aug=0.0))


def test_the_condition_is_the_mean_of_the_noised_picture(model):
    image = picture().permute(2, 0, 1)[None] * 2 - 1
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    config = OrbitConfig(size=SIZE, cond_aug=0.5)
    condition = orbit_conditioning(model, image, 10.0, config, noise)
    expected = model.vae.encode((image + 0.5 * noise).contiguous()).latent_dist.mean
    assert torch.allclose(condition.concat, expected.expand(16, -1, -1, -1), atol=1e-5)
    clean = orbit_conditioning(model, image, 10.0, config, torch.zeros_like(noise))
    assert torch.equal(condition.context, clean.context)  # the encoder sees the clean picture
    assert not torch.allclose(condition.concat, clean.concat, atol=1e-3)


def test_sampling_starts_from_noise_of_the_first_level_over_unit_latents(model):
    noise = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    image = picture().permute(2, 0, 1)[None] * 2 - 1
    condition = orbit_conditioning(model, image, 0.0, OrbitConfig(), torch.zeros_like(image))
    entered = []

    def watch(index, x, sigma):
        entered.append((x, sigma))
        return x

    sample_latents(
        model,
        condition,
        noise,
        solver="euler",
        steps=2,
        guidance=(1.0, 2.5),
        options=SampleOptions(),
        before_step=watch,
    )
    x, sigma = entered[0]
    assert torch.equal(x, noise * torch.sqrt(1 + sigma**2))
