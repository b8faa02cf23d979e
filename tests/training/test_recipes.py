"""The recipes at a tiny width: the same data whoever asks, where gradients go, and learning."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from hi3d_core.conditioning import Conditioning
from hi3d_core.networks.depth_network import build_depth_network
from hi3d_core.networks.video_unet import VideoUNetConfig, build_video_unet
from hi3d_core.threads import one_torch_thread
from hi3d_core.weights.load import load_video_model
from hi3d_core.weights.write import PendingTensor, write_safetensors
from training.dataset import OrbitDataset
from training.degradation import DegradationConfig
from training.losses import drop_conditions, predict, v_target
from training.motion_mask import MotionMask, masked_loss
from training.noise_levels import COND_AUG, SIGMA, LogNormal, keep_mask, v_weight
from training.orbit_recipe import OrbitRecipe, OrbitRecipeConfig
from training.recipe import Recipe
from training.refiner_recipe import RefinerRecipe, RefinerRecipeConfig
from training.seeding import generator_for, sample_seed, share_of
from training.surgery import read_svd_unet, refiner_input, refiner_label, start_from_svd

from ..core.official_naming import to_official
from ..core.tiny_models import TINY_DEPTH, filled, tiny_model
from .orbit_folders import orbit_frames, write_orbit

SIZE = 64
STAGES = ["orbit", "refiner"]


@pytest.fixture(autouse=True)
def one_thread():
    with one_torch_thread():
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for index in range(3):
        write_orbit(folder / f"object{index}", orbit_frames(index, 32, side=SIZE))
    return OrbitDataset(folder, SIZE)


def model_of(stage):
    model = tiny_model(stage)
    if stage == "refiner":
        generator = torch.Generator().manual_seed(1)
        depth = filled(build_depth_network(TINY_DEPTH), generator)
        model = dataclasses.replace(model, depth=depth)
    return model


def recipe_of(stage, dataset, **settings):
    settings = {"size": SIZE, "batch_size": 4, "threads": 0, "frames_at_once": 16, **settings}
    if stage == "orbit":
        return OrbitRecipe(model_of(stage), dataset, OrbitRecipeConfig(**settings))
    return RefinerRecipe(model_of(stage), dataset, RefinerRecipeConfig(**settings))


def same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, two[name]), name
        else:
            assert value == two[name], name


def joined(parts):
    whole = {}
    for name, value in parts[0].items():
        values = [part[name] for part in parts]
        is_tensor = isinstance(value, torch.Tensor)
        whole[name] = torch.cat(values) if is_tensor else [each for part in values for each in part]
    return whole


@pytest.mark.parametrize("stage", STAGES)
def test_is_a_recipe(stage, dataset):
    assert isinstance(recipe_of(stage, dataset), Recipe)


def test_batches_are_decided_by_seed_step_and_share(dataset):
    recipe = recipe_of("orbit", dataset)
    whole = recipe.batch(7, 0, 1)
    assert whole["frames"].shape == (4, 16, 3, SIZE, SIZE)
    same(recipe_of("orbit", dataset).batch(7, 0, 1), whole)
    for world in (2, 4):
        same(joined([recipe.batch(7, rank, world) for rank in range(world)]), whole)
    assert recipe.batch(8, 0, 1)["seeds"] != whole["seeds"]
    assert recipe_of("orbit", dataset, seed=1).batch(7, 0, 1)["seeds"] != whole["seeds"]
    assert len(set(whole["seeds"])) == 4


def test_reading_ahead_gives_the_same(dataset):
    ahead, plain = recipe_of("orbit", dataset, threads=2), recipe_of("orbit", dataset)
    for step, rank in [(0, 0), (0, 1), (1, 0), (1, 1), (5, 0), (2, 0), (3, 0)]:
        same(ahead.batch(step, rank, 2), plain.batch(step, rank, 2))


@pytest.mark.parametrize("stage", STAGES)
def test_two_halves_learn_what_the_whole_does(stage, dataset):
    """The mean of two processes' gradients is the whole batch's, whatever the global generator."""
    gradients, losses = [], []
    for world in (1, 2):
        recipe = recipe_of(stage, dataset, batch_size=2)
        total = 0.0
        for rank in range(world):
            torch.manual_seed(rank + 10 * world)
            loss, terms = recipe.loss(recipe.batch(3, rank, world))
            assert loss.ndim == 0
            assert terms["v"] == pytest.approx(float(loss.detach()))
            (loss / world).backward()
            total += float(loss.detach()) / world
        losses.append(total)
        gradients.append({name: p.grad for name, p in recipe.networks().named_parameters()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    largest = max(float(each.norm()) for each in gradients[0].values())
    for name, whole in gradients[0].items():
        assert float((whole - gradients[1][name]).norm()) < 1e-5 * largest, name


@pytest.mark.parametrize("stage", STAGES)
def test_only_what_is_trained_gets_gradients(stage, dataset):
    recipe = recipe_of(stage, dataset, batch_size=1, trained=(".time_stack.",))
    loss, _ = recipe.loss(recipe.batch(0, 0, 1))
    loss.backward()
    with_gradient = {name for name, p in recipe.networks().named_parameters() if p.grad is not None}
    assert with_gradient
    assert all("temporal" in name for name in with_gradient)
    for network in (recipe.model.vae, recipe.model.image_encoder, recipe.model.depth):
        if network is not None:
            assert not any(p.requires_grad for p in network.parameters())
    with pytest.raises(ValueError, match=r"nothing\.like"):
        recipe_of(stage, dataset, trained=("nothing.like.it",))


@pytest.mark.parametrize("stage", STAGES)
def test_state_is_what_the_loader_reads(stage, dataset, tmp_path):
    recipe = recipe_of(stage, dataset)
    path = tmp_path / "weights.safetensors"
    pending = {
        name: PendingTensor(tuple(each.shape), each.dtype, lambda each=each: each)
        for name, each in recipe.state().items()
    }
    write_safetensors(path, pending, {"format": "pt", **recipe.metadata()})
    loaded = load_video_model(path, stage)
    assert loaded.unet.settings == recipe.model.unet.settings
    for name in ("unet", "vae", "image_encoder", "depth"):
        ours, theirs = getattr(recipe.model, name), getattr(loaded, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            same(theirs.state_dict(), ours.state_dict())
    assert loaded.image_encoder.config.num_attention_heads == 2
    assert loaded.defaults.frame_size == SIZE  # at which it was trained


@pytest.mark.parametrize(("stage", "rows"), [("orbit", 2), ("refiner", 3)])
def test_samples_are_pictures_and_leave_no_trace(stage, rows, dataset):
    recipe = recipe_of(stage, dataset, sample_steps=1)
    before = torch.random.get_rng_state()
    pictures = recipe.samples()
    assert pictures.shape == (rows * 16, SIZE, SIZE, 3)
    assert float(pictures.min()) >= 0
    assert float(pictures.max()) <= 1
    assert torch.equal(pictures, recipe.samples())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(p.requires_grad for p in recipe.model.unet.parameters())
    assert recipe_of(stage, dataset, sample_steps=0).samples() is None


def test_orbit_condition_is_that_of_sampling(dataset):
    """Latents unscaled and alike in all frames, the token of the clean picture, the elevation."""
    recipe = recipe_of("orbit", dataset)
    images = torch.rand(16, 3, SIZE, SIZE) * 2 - 1
    background = torch.zeros(16, SIZE, SIZE, dtype=torch.bool)
    condition = recipe.condition(images, background, 20.0, seed=3)
    assert condition.concat.shape == (16, 4, SIZE // 8, SIZE // 8)
    assert torch.equal(condition.concat[0], condition.concat[15])
    cond_aug = recipe.cond_aug(3)
    angles = torch.exp(-torch.log(torch.tensor(10_000.0)) * torch.arange(128) / 128)
    assert torch.allclose(condition.vector[0, 256:384], (20 * angles).cos(), atol=1e-5)
    assert torch.allclose(condition.vector[0, 512:640], (cond_aug * angles).cos(), atol=1e-6)
    other = recipe.condition(torch.cat([images[:1], -images[1:]]), background, 20.0, seed=3)
    assert torch.equal(other.concat, condition.concat)  # only the first frame is seen


def test_refiner_condition_sees_bad_frames_and_a_clean_first_one(dataset):
    recipe = recipe_of("refiner", dataset)
    sample = dataset.read(0, 0)
    images = sample.frames.float() / 127.5 - 1
    bad = recipe._degraded(images, sample.background, 5)
    assert torch.equal(bad[0], images[0])
    assert (bad[1:] - images[1:]).abs().mean() > 0.01
    condition = recipe.condition(images, sample.background, 0.0, seed=5)
    assert condition.concat.shape == (16, 13, SIZE // 8, SIZE // 8)
    assert float(condition.concat[:, :9].min()) >= 0
    assert float(condition.concat[:, :9].max()) <= 1
    clean = recipe_of("refiner", dataset, degradation=DegradationConfig(erase=1.0))
    torn = clean.condition(images, sample.background, 0.0, seed=5)
    assert not torch.allclose(torn.concat[1:, -4:], condition.concat[1:, -4:])


def test_dropouts_are_independent_and_spare_the_depth():
    generator = torch.Generator().manual_seed(0)
    whole = Conditioning(torch.ones(1, 1, 8), torch.ones(1, 512), torch.ones(16, 13, 2, 2))
    drops = [drop_conditions(whole, generator) for _ in range(2000)]
    tokens = torch.tensor([float(each.context.mean()) for each in drops])
    latents = torch.stack([each.concat[:, -4:].mean(dim=(1, 2, 3)) for each in drops])
    assert set(tokens.tolist()) == {0.0, 1.0}
    assert float(tokens.mean()) == pytest.approx(0.9, abs=0.03)
    assert float(latents.mean()) == pytest.approx(0.9, abs=0.01)
    assert float(latents[tokens == 0].mean()) == pytest.approx(0.9, abs=0.02)
    assert float((latents.std(dim=1) > 0).float().mean()) > 0.7  # frame by frame
    for each in drops[:50]:
        assert (each.concat[:, :9] == 1).all()
        assert (each.vector == 1).all()
    assert (whole.concat == 1).all()


@pytest.mark.parametrize(("law", "mean", "deviation"), [(SIGMA, 1.0, 1.6), (COND_AUG, -3.0, 0.5)])
def test_noise_levels_are_log_normal(law, mean, deviation):
    generator = torch.Generator().manual_seed(0)
    logs = torch.cat([law.draw(generator) for _ in range(4000)]).log()
    assert float(logs.mean()) == pytest.approx(mean, abs=4 * deviation / 4000**0.5)
    assert float(logs.std()) == pytest.approx(deviation, rel=0.05)
    sigma = torch.linspace(-6, 6, 4001).mul(deviation).add(mean).exp().double()
    assert float(torch.trapezoid(law.density(sigma), sigma)) == pytest.approx(1, abs=1e-4)
    median = sigma <= torch.tensor(mean).exp()
    assert float(torch.trapezoid(law.density(sigma[median]), sigma[median])) == pytest.approx(
        0.5, abs=2e-3
    )


def test_an_orbit_has_one_noise_level(dataset, monkeypatch):
    recipe = recipe_of("orbit", dataset, batch_size=2)
    seen = []
    forward = recipe.model.unet.forward

    def watch(latents, c_noise, *arguments, **options):
        seen.append(c_noise)
        return forward(latents, c_noise, *arguments, **options)

    monkeypatch.setattr(recipe.model.unet, "forward", watch)
    batch = recipe.batch(0, 0, 1)
    recipe.loss(batch)
    levels = [recipe._sigma.draw(generator_for(seed, "sigma")) for seed in batch["seeds"]]
    assert torch.allclose(seen[0], 0.25 * torch.cat(levels).log(), atol=1e-6)


def test_the_target_is_what_makes_the_denoiser_right():
    clean, noise = torch.randn(2, 3, 4, 2, 2).double(), torch.randn(2, 3, 4, 2, 2).double()
    sigma = torch.tensor([0.3, 20.0]).double()
    level = sigma[:, None, None, None, None]
    noisy = clean + level * noise
    v = v_target(clean, noise, sigma)
    denoised = noisy / (level**2 + 1) - level / (level**2 + 1).sqrt() * v
    assert torch.allclose(denoised, clean)
    condition = Conditioning(torch.zeros(2, 1, 8), torch.zeros(2, 5), torch.zeros(2, 3, 4, 2, 2))
    said = predict(lambda *arguments: torch.zeros(2, 3, 4, 2, 2), clean, noise, sigma, condition)
    without = noisy / (level**2 + 1)
    weighted = (v_weight(level) * (without - clean) ** 2).mean()
    assert float(said.loss) == pytest.approx(float(weighted), rel=1e-6)


def test_motion_mask_ignores_what_can_not_be_learnt_and_nothing_else():
    """Where the error stays large the weight falls, elsewhere it stays near 1."""
    torch.manual_seed(0)
    mask = MotionMask(width=16)
    clean = torch.randn(1, 4, 4, 8, 8) * 0.1
    clean[:, 2, :, :4] += 3  # something passes by in frame 2
    error = torch.full((1, 4, 4, 8, 8), 0.05)
    error[:, 2, :, :4] = 4.0
    first = mask(clean)
    assert torch.allclose(first, torch.full_like(first, 0.95), atol=1e-6)
    optimizer = torch.optim.Adam(mask.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        sum(masked_loss(error, mask(clean), anchor=1.0)).backward()
        optimizer.step()
    weights = mask(clean).detach()
    assert float(weights[:, 2, :, :3].max()) < 0.2
    assert float(weights[:, [0, 1, 3]].min()) > 0.8
    # Without what holds them, the weights would all vanish.
    zero = torch.zeros_like(weights)
    assert sum(masked_loss(error, zero, 1.0)) > sum(masked_loss(error, weights, 1.0))
    with pytest.raises(ValueError, match="lambda"):
        masked_loss(error, weights, 0.0)


def test_motion_mask_in_a_recipe(dataset):
    recipe = recipe_of("orbit", dataset, batch_size=1, motion_mask=0.5)
    loss, terms = recipe.loss(recipe.batch(0, 0, 1))
    loss.backward()
    assert terms["masked"] + terms["anchor"] == pytest.approx(float(loss.detach()))
    assert terms["masked"] == pytest.approx(0.95 * terms["v"], rel=1e-4)
    assert terms["anchor"] == pytest.approx(0.5 * 0.05**2, rel=1e-3)
    mask = recipe.networks()["motion_mask"]
    assert all(p.grad is not None for p in mask.parameters())
    assert not any("motion" in name for name in recipe.state())


def test_surgery_begins_as_if_there_were_no_depth_and_no_elevation():
    svd = tiny_model("orbit").unet
    refiner = tiny_model("refiner").unet
    assert start_from_svd(refiner, svd.state_dict(), "refiner") == []
    noisy, latents = torch.randn(1, 16, 4, 8, 8), torch.randn(1, 16, 4, 8, 8)
    depth, vector = torch.rand(1, 16, 9, 8, 8), torch.randn(1, 768)
    context, level = torch.randn(1, 1, 16), torch.tensor([0.3])
    vector[:, :512] = 0
    before = svd(torch.cat([noisy, latents], 2), level, context, vector)
    after = refiner(torch.cat([noisy, depth, latents], 2), level, context, vector[:, 256:])
    assert torch.allclose(before, after, atol=1e-5)
    orbit = tiny_model("orbit", seed=3).unet
    start_from_svd(orbit, svd.state_dict(), "orbit")
    same(orbit.state_dict(), svd.state_dict())


def test_surgery_refuses_other_widths():
    with pytest.raises(ValueError, match="768"):
        refiner_label(torch.zeros(4, 512))
    with pytest.raises(ValueError, match="8, 3, 3"):
        refiner_input(torch.zeros(4, 17, 3, 3))
    wide = build_video_unet(
        VideoUNetConfig(block_channels=(64, 64, 64, 64), head_channels=8, context_channels=16)
    )
    with pytest.raises(ValueError, match="expected"):
        start_from_svd(wide, tiny_model("orbit").unet.state_dict(), "orbit")


def test_reads_the_unet_of_a_svd_checkpoint(tmp_path):
    from safetensors.torch import save_file

    from hi3d_core.networks.video_unet_keys import official_sources

    unet = tiny_model("orbit").unet
    official = to_official(unet, official_sources(unet.settings))
    prefix = "model.diffusion_model."
    tensors = {prefix + name: each.contiguous() for name, each in official.items()}
    tensors["first_stage_model.decoder.up.0.block.0.time_stack.weight"] = torch.zeros(1)
    save_file(tensors, tmp_path / "svd.safetensors")
    same(read_svd_unet(tmp_path / "svd.safetensors", head_channels=8), unet.state_dict())


def test_bad_settings_are_refused(dataset):
    with pytest.raises(ValueError, match="multiple of 64"):
        OrbitRecipeConfig(size=100)
    with pytest.raises(ValueError, match="batch_size"):
        OrbitRecipeConfig(batch_size=0)
    with pytest.raises(ValueError, match="drop_context"):
        OrbitRecipeConfig(drop_context=1.5)
    with pytest.raises(ValueError, match="64 pixels"):
        recipe_of("orbit", dataset, size=128)
    with pytest.raises(ValueError, match="share equally"):
        recipe_of("orbit", dataset).batch(0, 0, 3)
    with pytest.raises(ValueError, match="rank is 2"):
        share_of(4, 2, 2)
    with pytest.raises(ValueError, match="refiner model"):
        OrbitRecipe(model_of("refiner"), dataset, OrbitRecipeConfig(size=SIZE))
    with pytest.raises(ValueError, match="depth"):
        RefinerRecipe(tiny_model("refiner"), dataset, RefinerRecipeConfig(size=SIZE))
    with pytest.raises(ValueError, match="deviation"):
        LogNormal(0.0, -1.0)
    with pytest.raises(ValueError, match="0 to 1"):
        keep_mask(3, 2.0, torch.Generator())


def test_seeds_differ_by_each_of_their_parts():
    seeds = {sample_seed(a, b, c) for a in range(3) for b in range(5) for c in range(7)}
    assert len(seeds) == 105
    one = torch.rand(4, generator=generator_for(1, "noise"))
    assert torch.equal(one, torch.rand(4, generator=generator_for(1, "noise")))
    assert not torch.equal(one, torch.rand(4, generator=generator_for(1, "sigma")))


class OneOrbit:
    """A dataset of one ring, always begun at the same frame."""

    size = SIZE

    def __init__(self, dataset):
        self.sample = dataset.read(0, 0)

    def draw(self, generator):
        return self.sample


def newly_built(model):
    """The model with an untrained UNet as one is built, and latents that are sharp.

    The posterior of the test models' random autoencoder is so wide that nothing could be learnt.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        unet = build_video_unet(model.unet.settings)
        moments = model.vae.quant_conv
        moments.weight[:4] *= 3
        moments.bias[:4] = 0
        moments.weight[4:] = 0
        moments.bias[4:] = -30
    return dataclasses.replace(model, unet=unet)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_overfits_one_object(stage, dataset):
    """At a noise level that stays the same, the loss on unseen noise falls to a tenth."""
    recipe = recipe_of(
        stage, OneOrbit(dataset), batch_size=1, sigma_mean=math.log(10), sigma_deviation=0.0
    )
    recipe = type(recipe)(newly_built(recipe.model), recipe.dataset, recipe.config)
    unseen = recipe.batch(10**6, 0, 1)
    parameters = list(recipe.networks().parameters())
    optimizer = torch.optim.AdamW(parameters, 3e-3)
    with torch.no_grad():
        before = float(recipe.loss(unseen)[0])
    for step in range(60):
        loss, _ = recipe.loss(recipe.batch(step, 0, 1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    with torch.no_grad():
        after = float(recipe.loss(unseen)[0])
    assert after < before / 10
