"""The small model's recipe: its pieces, and that slices of time change nothing."""

import dataclasses
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from hi3d_core.datatypes import Mesh
from hi3d_core.networks.image_encoder import normalise, resize_image
from hi3d_core.networks.vae import LATENT_SCALE, VaeConfig, build_vae, decode, encode_moments
from hi3d_core.networks.video_unet import VideoUNetConfig, build_video_unet
from hi3d_core.refine import depth_channels
from hi3d_core.render import render_mesh
from training.dataset import OrbitDataset, to_network_range
from training.engine.settings import OptimizerSettings, TrainSettings
from training.render_dataset import render_dataset
from training.rendering.plan import Plan
from training.tiny import parts
from training.tiny.attention import plain_attention, train_by_short_way
from training.tiny.colours import Variant, draw_variant
from training.tiny.depth_recipe import DepthRecipe, DepthRecipeConfig
from training.tiny.fronts import fronts
from training.tiny.latent_orbits import encode_orbit
from training.tiny.orbit_recipe import TinyOrbitConfig, TinyOrbitRecipe
from training.tiny.pack import pack
from training.tiny.refiner_recipe import changed
from training.tiny.sampling import Sampling
from training.tiny.settings import (
    DecoderStage,
    DepthStage,
    OrbitStage,
    RefinerStage,
    TinyData,
    TinySettings,
    VaeStage,
)
from training.tiny.shards import Shards
from training.tiny.stages import Tiny
from training.tiny.vae_recipe import VaeRecipe, VaeRecipeConfig, standardise
from training.toy_objects import training_toy

UNET = VideoUNetConfig(
    block_channels=(32, 32), head_channels=16, context_channels=16, layers_per_block=1
)


def ring_of(toy, size=48):
    return render_mesh(toy, Plan(size=size).cameras((20.0,)), supersample=2).images.permute(
        0, 3, 1, 2
    )


def test_mirrored_ring_is_that_of_the_mirrored_object():
    toy = training_toy(11, spacing=0.04)
    other = Mesh(
        toy.vertices * torch.tensor([-1.0, 1.0, 1.0]),
        toy.faces.flip(1),
        vertex_colors=toy.vertex_colors,
    )
    ring, seen = ring_of(toy), ring_of(other)
    mirrored = Variant((0, 1, 2), True).of_ring(ring)
    assert (mirrored - ring).abs().mean() > 0.01  # the toy is not its own mirror image
    assert (mirrored - seen).abs().mean() < 1e-3
    assert torch.equal(Variant((0, 1, 2), True).of_frames(ring[0]), mirrored[0])


def test_swapped_colours_keep_white_and_what_is_no_colour():
    frames = torch.rand(2, 4, 4, 4)
    frames[0] = 1.0
    seen = set()
    for seed in range(80):
        variant = draw_variant(torch.Generator().manual_seed(seed))
        seen.add((variant.order, variant.mirrored))
        changed = variant.of_frames(frames)
        assert torch.equal(changed[0], frames[0])
        expected = torch.stack([frames[1, old] for old in (*variant.order, 3)])
        assert torch.equal(changed[1], expected.flip(-1) if variant.mirrored else expected)
    assert len(seen) == 12


def test_latents_that_are_colours_change_as_pictures_do():
    ring = ring_of(training_toy(3, spacing=0.04))
    pooled = torch.nn.functional.avg_pool2d(ring, 8)
    for seed in range(6):
        variant = draw_variant(torch.Generator().manual_seed(seed))
        of_changed = torch.nn.functional.avg_pool2d(variant.of_ring(ring), 8)
        assert torch.allclose(of_changed, variant.of_ring(pooled), atol=1e-6)


def test_autoencoder_is_taught_colours_and_their_exchange():
    """One that passes averaged colours on and draws them as blocks, losing what is lost by that."""
    frames = (ring_of(training_toy(3, spacing=0.04), 64) * 255).round().to(torch.uint8)
    noise = torch.zeros(frames.shape)
    variants = [draw_variant(torch.Generator().manual_seed(seed)) for seed in range(len(frames))]
    batch = {
        "frames": frames,
        "noise": noise,
        "latent_noise": torch.zeros(len(frames), 4, 8, 8),
        "variants": variants,
    }
    clean = frames / 127.5 - 1
    pooled = torch.nn.functional.avg_pool2d(clean, 8)
    blocks = torch.nn.functional.interpolate(pooled, scale_factor=8)
    _, terms = VaeRecipe(Blocks(), None, VaeRecipeConfig()).loss(batch)
    assert terms["tied"] < 1e-12
    assert terms["squared"] == pytest.approx(float((blocks - clean).square().mean()), rel=1e-5)
    _, terms = VaeRecipe(Blocks(shift=0.5), None, VaeRecipeConfig()).loss(batch)
    assert terms["tied"] == pytest.approx(0.25, rel=1e-5)


class Blocks(torch.nn.Module):
    """Stands for an autoencoder."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.shift = shift

    def encode(self, images):
        pooled = torch.nn.functional.avg_pool2d(images, 8) + self.shift
        mean = torch.cat([pooled, torch.zeros_like(pooled[:, :1])], dim=1)
        logvar = torch.full_like(mean, -60.0)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, logvar=logvar))

    def decode(self, latents):
        colours = latents[:, :3] - self.shift
        return SimpleNamespace(sample=torch.nn.functional.interpolate(colours, scale_factor=8))


def test_some_fronts_are_of_another_elevation_and_all_is_changed_alike():
    rows = {
        "latents": torch.rand(3, 16, 4, 2, 2).half(),
        "conditions": torch.rand(3, 2, 4, 2, 2).half(),
        "pictures": torch.rand(3, 2, 3, 6, 6).half(),
        "elevation_degrees": torch.tensor([1.0, 2.0, 3.0]),
    }
    config = TinyOrbitConfig(batch_size=3, turned=0.4)
    shards = SimpleNamespace(batch=lambda seed, places: rows)
    model = SimpleNamespace(unet=build_video_unet(UNET), image_encoder=torch.nn.Linear(1, 1))
    recipe = TinyOrbitRecipe(model, shards, None, config, Sampling())
    turned, orders = 0, set()
    for step in range(40):
        batch = recipe.batch(step, 0, 1)
        assert torch.equal(batch["elevation_degrees"], rows["elevation_degrees"])
        for place in range(3):
            (found,) = {
                (variant, front)
                for variant in VARIANTS
                for front in range(2)
                if torch.equal(
                    batch["condition"][place],
                    variant.of_frames(rows["conditions"][place, front]),
                )
            }
            variant, front = found
            turned += front
            orders.add(variant)
            ring = variant.of_ring(rows["latents"][place])
            assert torch.equal(batch["latents"][place], ring)
            picture = variant.of_frames(rows["pictures"][place, front]).float()
            assert torch.equal(batch["picture"][place], normalise(picture))
    assert 30 < turned < 66  # of 120
    assert orders == set(VARIANTS)


VARIANTS = [
    Variant(order, mirrored)
    for order in itertools.permutations(range(3))
    for mirrored in (False, True)
]


def test_refiners_variants_are_those_of_a_mirrored_and_recoloured_orbit():
    raw = torch.rand(16, 12, 12)
    ring = {
        "latents": torch.rand(16, 4, 4, 4),
        "coarse": torch.rand(16, 4, 4, 4),
        "picture": torch.rand(3, 6, 6),
    }
    rows = {
        "latents": ring["latents"][None],
        "concat": torch.cat([depth_channels(raw, 4, 4), ring["coarse"]], dim=1)[None],
        "picture": ring["picture"][None],
        "vector": torch.rand(1, 5),
    }
    seen = set()
    for seed in range(40):
        row = changed(rows, 0, seed)
        (variant,) = (
            each for each in VARIANTS if torch.equal(row["latents"], each.of_ring(ring["latents"]))
        )
        seen.add(variant)
        mirror = Variant((0, 1, 2), variant.mirrored)
        depths = depth_channels(mirror.of_ring(raw[:, None].expand(-1, 3, -1, -1))[:, 0], 4, 4)
        coarse = variant.of_ring(ring["coarse"])
        assert torch.allclose(row["concat"], torch.cat([depths, coarse], dim=1), atol=1e-6)
        assert torch.equal(row["picture"], normalise(variant.of_frames(ring["picture"])))
        assert torch.equal(row["vector"], rows["vector"][0])
    assert len(seen) > 8


def test_other_fronts_show_the_same_toys_from_the_front(tmp_path):
    plan = Plan(elevations=None, size=32, supersample=2, geometry=False, toy_spacing=0.04)
    made = fronts(tmp_path, range(7, 11), plan, 2, 0)
    assert made.count == 2
    front = made.shard(1)["front"]
    assert front.shape == (2, 3, 32, 32)
    for seed, picture in zip(range(9, 11), front, strict=True):
        toy = training_toy(seed, spacing=0.04)
        errors = []
        for elevation in range(-10, 41, 2):
            ring = render_mesh(toy, plan.cameras((float(elevation),)), supersample=2).images
            errors.append((ring.permute(0, 3, 1, 2) - picture / 255).square().mean(dim=(1, 2, 3)))
        best = torch.stack(errors)
        assert best.argmin() % 16 == 0  # azimuth 0
        assert best.min() < 2e-3


def test_depths_are_mirrored_with_their_pictures(tmp_path):
    plan = Plan(elevations=None, size=64, supersample=2, geometry=True, toy_spacing=0.04)
    render_dataset("toys:11-11", tmp_path / "toys", plan, workers=1)
    dataset = OrbitDataset(tmp_path / "toys", 64, resolution=64)
    config = DepthRecipeConfig(rings=1, frames=16, noise=0.0, blur=0.0)
    recipe = DepthRecipe(torch.nn.Linear(1, 1), dataset, plan.depth_scale, config)
    batch = recipe.batch(0, 0, 1)
    shown = (batch["images"] < 0.98).any(dim=1)  # not white
    known = batch["inverse"] > 0
    apart = (shown != known).float().mean(dim=(1, 2))
    beside = (shown != known.flip(-1)).float().mean(dim=(1, 2))
    assert apart.max() < 0.03
    assert beside.max() > 0.06  # the toy is not its own mirror image
    distances = 1 / batch["inverse"][known]
    assert 1.0 < distances.min() < distances.max() < 2.0  # 1.5 from the middle of a unit cube


def test_own_front_comes_before_that_of_another_elevation(tmp_path):
    plan = Plan(elevations=(0.0,), size=64, supersample=2, geometry=False, toy_spacing=0.04)
    render_dataset("toys:11-11", tmp_path / "toys", plan, workers=1)
    dataset = OrbitDataset(tmp_path / "toys", 64, resolution=64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = build_vae(VaeConfig(channels=(32, 32, 32, 32), layers_per_block=1)).eval()
    camera = Plan(size=64).cameras((40.0,))[:1]
    mesh = training_toy(11, spacing=0.04)
    other = (render_mesh(mesh, camera, supersample=2).images[0] * 255).permute(2, 0, 1).byte()
    row = encode_orbit(vae, dataset, 0, other, torch.Generator().manual_seed(0))
    ring = dataset.read(0, 0).frames
    pictures = to_network_range(torch.stack([ring[0], other]))
    assert torch.equal(row["pictures"], resize_image(pictures, 64).half())
    with torch.no_grad():
        exact, _ = encode_moments(vae, to_network_range(torch.cat([ring, other[None]])), 17)
    assert row["latents"].shape == (16, 4, 8, 8)
    scale = exact.std()
    assert (row["latents"] / LATENT_SCALE - exact[:16]).abs().mean() < 0.05 * scale
    to_own, to_other = (
        (row["conditions"] - exact[number]).abs().mean(dim=(1, 2, 3)) for number in (0, 16)
    )
    assert to_own[0] < 0.5 * to_own[1]
    assert to_other[1] < 0.5 * to_other[0]
    assert row["elevation_degrees"] == 0.0


def test_standardised_latents_have_unit_variance_and_pictures_stay():
    torch.manual_seed(0)
    vae = build_vae(VaeConfig(channels=(16, 16), layers_per_block=1, norm_groups=4))
    vae.eval().requires_grad_(False)
    images = torch.rand(6, 3, 16, 16) * 2 - 1
    before, logvar = encode_moments(vae, images, 6)
    pictures = decode(vae, before, 6)
    standardise(vae, before)
    after, logvar_after = encode_moments(vae, images, 6)
    scaled = after * LATENT_SCALE
    assert torch.allclose(scaled[:, 3].mean(), torch.tensor(0.0), atol=1e-4)
    variance = scaled.var(dim=(0, 2, 3))
    assert torch.allclose(variance[:3].mean(), torch.tensor(1.0), atol=1e-4)
    assert torch.allclose(variance[3], torch.tensor(1.0), atol=1e-4)
    assert torch.allclose(scaled[:, :3].mean(), torch.tensor(0.0), atol=1e-4)
    # The three colours changed alike.
    gain = scaled.std(dim=(0, 2, 3)) / before.std(dim=(0, 2, 3))
    assert torch.allclose(gain[:3], gain[0], rtol=1e-4)
    assert torch.allclose(decode(vae, after, 6), pictures, atol=1e-4)
    # Noise of the posterior is as much of a latent as it was.
    share = torch.exp(0.5 * logvar) / before.std(dim=(0, 2, 3))[:, None, None]
    share_after = torch.exp(0.5 * logvar_after) / after.std(dim=(0, 2, 3))[:, None, None]
    assert torch.allclose(share, share_after, rtol=1e-3)


def test_each_pass_takes_every_sample_once_in_another_order(tmp_path):
    made = []

    def make(number):
        made.append(number)
        return {"place": torch.arange(4) + 4 * number}

    shards = Shards(tmp_path, 3, 4, make)
    row = shards.batch(7, range(0, 24))["place"].tolist()
    assert sorted(row[:12]) == sorted(row[12:]) == list(range(12))
    assert row[:12] != row[12:]
    assert shards.batch(7, range(3, 9))["place"].tolist() == row[3:9]
    assert shards.batch(8, range(0, 24))["place"].tolist() != row
    assert sorted(made) == [0, 1, 2]  # the second pass read the files
    assert Shards(tmp_path, 3, 4, make).batch(7, range(0, 24))["place"].tolist() == row
    assert len(made) == 3


def test_short_way_has_the_same_output_and_gradients():
    torch.manual_seed(0)
    whole, short = build_video_unet(UNET), build_video_unet(UNET)
    short.load_state_dict(whole.state_dict())
    train_by_short_way(short)
    inputs = (
        torch.randn(2, 16, 8, 4, 4),
        torch.tensor([0.1, 0.5]),
        torch.randn(2, 1, 16),
        torch.randn(2, 768),
    )
    target = torch.randn(2, 16, 4, 4, 4)
    outputs = []
    for network in (whole, short):
        with plain_attention(torch.device("cpu")):
            output = network(*inputs)
            ((output - target) ** 2).mean().backward()
        outputs.append(output.detach())
    assert torch.allclose(*outputs, atol=1e-5)
    wholes = dict(whole.named_parameters())
    frozen = []
    for name, parameter in short.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(parameter.grad, wholes[name].grad, atol=1e-5), name
        else:
            frozen.append(name)
            assert wholes[name].grad.abs().max() < 1e-6
    assert frozen
    assert all(".attn2." in name or ".norm2." in name for name in frozen)


def test_fewer_norm_groups_keep_how_strong_a_colour_is():
    pictures = torch.ones(2, 3, 16, 16)
    pictures[0, :, 4:12, 4:12] = -0.5
    pictures[1, :, 4:12, 4:12] = 0.5
    differences = []
    for groups in (16, 4):
        torch.manual_seed(0)
        vae = build_vae(VaeConfig(channels=(16, 16), layers_per_block=1, norm_groups=groups))
        norm = vae.decoder.conv_norm_out
        assert norm.num_groups == groups
        # One strong and three empty channels a group: what a single one can't tell, four can.
        hidden = torch.zeros(2, 16, 16, 16)
        hidden[:, ::4] = pictures[:, :1]
        hidden[:, 1::4, 4:12, 4:12] = 1.0
        normed = norm(hidden).detach()
        differences.append(float((normed[0] - normed[1]).abs().max()))
    assert differences[0] < 1e-2 < differences[1]


def test_split_state_is_whole_again(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "LARGEST", 1000)
    state = tmp_path / "state"
    contents = {
        "orbit/checkpoints/step_1/weights.safetensors": bytes(range(256)) * 10,
        "orbit/log.jsonl": b"{}\n",
        "vae.safetensors": b"x" * 2000,
        "empty": b"",
    }
    for name, content in (contents | {"data/orbits/000.png": b"picture"}).items():
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_bytes(content)
    assert parts.split(state, tmp_path / "parts") == 3 + 1 + 2 + 1
    sizes = [each.stat().st_size for each in (tmp_path / "parts").glob("*.part")]
    assert max(sizes) == 1000
    assert parts.join(tmp_path / "parts", tmp_path / "again") == len(contents)
    found = {
        each.relative_to(tmp_path / "again").as_posix(): each.read_bytes()
        for each in (tmp_path / "again").rglob("*")
        if each.is_file()
    }
    assert found == contents
    (tmp_path / "parts" / "00001.part").write_bytes(b"other")
    with pytest.raises(ValueError, match="damaged"):
        parts.join(tmp_path / "parts", tmp_path / "third")
    with pytest.raises(ValueError, match="not empty"):
        parts.split(state, tmp_path / "parts")


def test_parts_may_not_leave_the_state(tmp_path):
    (tmp_path / "parts").mkdir()
    told = [{"file": "../outside", "pieces": []}]
    (tmp_path / "parts" / "parts.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="elsewhere"):
        parts.join(tmp_path / "parts", tmp_path / "state")
    assert not (tmp_path / "outside").exists()


def test_shards_must_divide_the_rings():
    with pytest.raises(ValueError, match=r"data.orbits is 10 and data.shard 3"):
        TinyData(orbits=10, shard=3)


class Slices:
    """A clock that stops every stage as soon as it has done one thing."""

    minutes_left = 0.0

    def __init__(self):
        self.asked = 0

    def up(self):
        self.asked += 1
        return self.asked > 1


class Never:
    minutes_left = None

    def up(self):
        return False


def few_steps(**changed):
    """Settings of the whole recipe that take seconds."""
    stage = {"train": TrainSettings(steps=3, ema_decay=0.9, cpu=True, save_every=2)}
    data = TinyData(
        orbit_size=64,
        refiner_size=128,
        orbits=4,
        vae_rings=2,
        refined=2,
        depth=2,
        shown=1,
        shard=2,
        refined_shard=1,
    )
    stages = {
        "vae": VaeStage(**stage),
        "orbit": OrbitStage(**stage),
        "depth": DepthStage(**stage),
        "refiner": RefinerStage(**stage),
        "refiner_decoder": DecoderStage(**stage),
        "decoder": DecoderStage(**stage),
    }
    return TinySettings(**{"data": data, **stages, **changed})


def run_all(settings, state, out, clock=Never):
    """Every stage until it is done, then the two files; returns how often a stage was cut off."""
    slices = 0
    for name in Tiny(settings, state, clock()).stages():
        while not Tiny(settings, state, clock()).stages()[name]():
            slices += 1
    pack(state, settings, out)
    return slices


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The two files of a recipe that was never interrupted."""
    folder = tmp_path_factory.mktemp("tiny")
    assert run_all(few_steps(), folder / "state", folder / "out") == 0
    return folder / "out"


@pytest.mark.slow
def test_slices_of_time_change_no_bit(packed, tmp_path):
    assert run_all(few_steps(), tmp_path / "state", tmp_path / "out", Slices) >= 4 * 2 + 3 + 1
    for file in ("orbit.safetensors", "refiner.safetensors"):
        one, other = (load_file(folder / file) for folder in (packed, tmp_path / "out"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_finished_model_is_trained_further(packed, tmp_path):
    settings = few_steps(begin=packed, seed=5)
    gentle = OptimizerSettings(learning_rate=1e-6)
    settings = dataclasses.replace(
        settings,
        data=dataclasses.replace(settings.data, first=50),
        orbit=dataclasses.replace(settings.orbit, optimizer=gentle),
        refiner=dataclasses.replace(settings.refiner, optimizer=gentle),
    )
    assert run_all(settings, tmp_path / "state", tmp_path / "out") == 0
    toys = sorted(each.name for each in (tmp_path / "state/data/orbits/extras").iterdir())
    assert toys == [f"toy-{seed:07d}" for seed in range(50, 54)]
    for file, trained, kept in (
        ("orbit.safetensors", ("unet.", "image_encoder."), ("vae.encoder.",)),
        ("refiner.safetensors", ("unet.",), ("vae.encoder.", "depth.", "image_encoder.")),
    ):
        before, after = (load_file(folder / file) for folder in (packed, tmp_path / "out"))
        assert before.keys() == after.keys()
        for name in before:
            if name.startswith(kept):
                assert torch.equal(before[name], after[name]), name
            elif name.startswith(trained):  # three steps of 1e-6, stored in half precision
                near = torch.isclose(before[name], after[name], rtol=2e-3, atol=1e-5)
                assert near.all(), name
        weights = load_file(tmp_path / "state" / file)
        assert any(
            not torch.equal(weights[name], before[name].float())
            for name in before
            if name.startswith(trained)
        )
    log = json.loads((tmp_path / "out" / "training_log.json").read_text())
    assert set(log["curves"]) == {"orbit", "decoder", "refiner", "refiner_decoder"}
    assert log["began from"] == json.loads((packed / "training_log.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["orbit", "refiner"])
def test_one_stage_alone_is_trained_further(stage, packed, tmp_path):
    settings = few_steps(begin=packed, further=(stage,))
    assert run_all(settings, tmp_path / "state", tmp_path / "out") == 0
    for file in ("orbit", "refiner"):
        before, after = (
            load_file(folder / f"{file}.safetensors") for folder in (packed, tmp_path / "out")
        )
        assert before.keys() == after.keys()
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert same == (file != stage)
    drawn = {each.name for each in (tmp_path / "state" / "data").iterdir()}
    assert drawn == ({"orbits", "refined", "shown"} if stage == "orbit" else {"refined"})


@pytest.mark.parametrize("stages", [(), ("orbit",), ("refiner",)])
def test_one_stage_alone_needs_a_model_to_begin_from(stages):
    with pytest.raises(ValueError, match="further is"):
        few_steps(further=stages)


def test_beginning_needs_a_folder_with_both_files(tmp_path):
    tiny = Tiny(few_steps(begin=tmp_path / "nowhere"), tmp_path / "state", Never())
    with pytest.raises(ValueError, match=r"nowhere.*orbit.safetensors"):
        tiny.train_vae()
    assert not (tmp_path / "state" / "vae.safetensors").exists()


@pytest.mark.slow
def test_a_stage_goes_on_with_other_settings_if_told_to(tmp_path):
    state = tmp_path / "state"
    assert Tiny(few_steps(), state, Never()).draw()
    assert Tiny(few_steps(), state, Never()).train_vae()
    longer = few_steps(vae=VaeStage(train=TrainSettings(steps=5, ema_decay=0.9, cpu=True)))
    with pytest.raises(ValueError, match=r"train.steps: 3 -> 5[\s\S]*--allow-changed"):
        Tiny(longer, state, Never()).train_vae()
    assert Tiny(longer, state, Never(), allow_changed=True).train_vae()
    lines = (state / "vae" / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps[-1] == 5
    assert steps == sorted(set(steps))  # nothing was trained twice
