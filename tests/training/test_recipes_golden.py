"""Losses, targets, gradients and the surgery against tensors recorded from the official code."""

import json

import pytest
import torch
from safetensors import safe_open

from hi3d_core.conditioning import Conditioning
from hi3d_core.networks.video_unet import build_video_unet
from hi3d_core.networks.video_unet_keys import official_sources, settings_from_official
from hi3d_core.threads import one_torch_thread
from training.losses import drop_conditions, predict, v_target
from training.noise_levels import SIGMA, v_weight
from training.surgery import INPUT, LABEL, start_from_svd
from training.trained_parameters import choose_trained, official_name

from ..core.golden.goldens import golden, manifest, need, official_state, relative_error, settings

FLOATS = 1e-4
STAGES = (1, 2)
CHECKPOINTS = {1: "stage1/first_stage.pt", 2: "stage2/second_stage.pt"}
SURGERY = "train/svd_surgery.safetensors"
FRAMES = 16


@pytest.fixture(autouse=True)
def one_thread():
    with one_torch_thread():
        yield


def inputs(stage, name):
    return golden(f"train/stage{stage}_inputs.safetensors", name)


def outputs(stage, name):
    return golden(f"train/stage{stage}_outputs.safetensors", name)


def official_unet(stage):
    """The recorded run's network, with gradients."""
    state = official_state(CHECKPOINTS[stage], "model.diffusion_model.")
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    equivalent = settings()["diffusers_equivalent"]
    head = equivalent["block_out_channels"][0] // equivalent["num_attention_heads"][0]
    found = settings_from_official(shapes, head)
    unet = build_video_unet(found)
    sources = official_sources(found)
    unet.load_state_dict({name: each.extract(state[each.name]) for name, each in sources.items()})
    return unet


def by_video(tensor):
    return tensor.unflatten(0, (-1, FRAMES))


class Run:
    """One recorded training step, and ours on the same numbers."""

    def __init__(self, stage):
        self.stage = stage
        self.unet = official_unet(stage)
        self.chosen = choose_trained(self.unet)
        self.sigma = SIGMA.of(inputs(stage, "sigma_rand"))
        self.clean = by_video(inputs(stage, "x"))
        self.noise = by_video(inputs(stage, "noise"))
        condition = Conditioning(
            inputs(stage, "cond_crossattn"),
            inputs(stage, "cond_vector"),
            by_video(inputs(stage, "cond_concat")),
        )
        self.prediction = predict(self.unet, self.clean, self.noise, self.sigma, condition)
        self.prediction.loss.backward()

    @property
    def gradients(self):
        names = official_name(self.unet)
        return {names[ours]: each.grad for ours, each in self.unet.named_parameters()}


@pytest.fixture(scope="module")
def run_of():
    runs = {}

    def get(stage):
        need(f"train/stage{stage}_inputs.safetensors")
        if stage not in runs:
            with one_torch_thread():
                runs[stage] = Run(stage)
        return runs[stage]

    return get


@pytest.mark.parametrize("stage", STAGES)
def test_golden_noise_levels_and_weights(stage):
    sigma = SIGMA.of(inputs(stage, "sigma_rand"))
    assert relative_error(sigma, outputs(stage, "sigma")) <= 1e-6
    assert relative_error(v_weight(sigma), outputs(stage, "weight")) <= 1e-6


@pytest.mark.parametrize("stage", STAGES)
def test_golden_target(run_of, stage):
    run = run_of(stage)
    official = by_video(outputs(stage, "v_target"))
    assert relative_error(run.prediction.target, official) <= 1e-6
    assert relative_error(v_target(run.clean, run.noise, run.sigma), official) <= 1e-6


@pytest.mark.parametrize("stage", STAGES)
def test_golden_network_and_loss(run_of, stage):
    prediction = run_of(stage).prediction
    assert relative_error(prediction.v.detach(), by_video(outputs(stage, "network"))) <= FLOATS
    per_frame = by_video(outputs(stage, "loss_per_frame"))
    assert relative_error(prediction.per_frame.detach(), per_frame) <= 1e-5
    assert relative_error(prediction.loss.detach(), outputs(stage, "loss")) <= 1e-5


@pytest.mark.parametrize("stage", STAGES)
def test_golden_loss_is_the_weighted_error_of_the_clean_sample(run_of, stage):
    """The official form, w (D - x)^2 with D = c_skip x_noisy + c_out F, gives the same loss."""
    run = run_of(stage)
    sigma = run.sigma[:, None, None, None, None]
    noisy = run.clean + sigma * run.noise
    denoised = noisy / (sigma**2 + 1) - run.prediction.v.detach() * sigma / (sigma**2 + 1).sqrt()
    weighted = v_weight(sigma) * (denoised - run.clean) ** 2
    official = by_video(outputs(stage, "loss_per_frame"))
    assert relative_error(weighted.mean(dim=(2, 3, 4)), official) <= FLOATS


@pytest.mark.parametrize("stage", STAGES)
def test_golden_gradients(run_of, stage):
    path = f"train/stage{stage}_outputs.safetensors"
    gradients = run_of(stage).gradients
    with safe_open(need(path), framework="pt") as file:
        recorded = [name for name in file.keys() if name.startswith("grad.")]  # noqa: SIM118
    assert recorded
    for name in recorded:
        ours = gradients[name.removeprefix("grad.")]
        assert relative_error(ours, golden(path, name)) <= FLOATS, name


@pytest.mark.parametrize("stage", STAGES)
def test_golden_gradient_norms(run_of, stage):
    """Of every parameter. Where the true gradient is nil both hold rounding, of the same smallness.

    Convolutions' biases before a GroupNorm of one channel a group, and queries and keys of a
    single token, have none.
    """
    official = json.loads(need(f"train/stage{stage}_grad_norms.json").read_text())
    gradients = run_of(stage).gradients
    assert gradients.keys() == official.keys()
    largest = max(official.values())
    compared = 0
    for name, norm in official.items():
        ours = float(gradients[name].norm())
        if norm > 1e-7 * largest:
            assert abs(ours - norm) <= FLOATS * norm, name
            compared += 1
        else:
            assert ours <= 1e-7 * largest, name
    assert compared > 0.5 * len(official)


@pytest.mark.parametrize("stage", STAGES)
def test_golden_trained_parameters(stage):
    told = json.loads(need("train/trained_param_keys.json").read_text())[f"stage{stage}"]
    unet = official_unet(stage)
    assert len(choose_trained(unet, told["train_yaml"])) == told["total"]
    assert all(each.requires_grad for each in unet.parameters())
    chosen = choose_trained(unet, told["inference_yaml"])
    assert sorted(chosen) == sorted(told["inference_yaml_selected"])
    trained = {name for name, each in unet.named_parameters() if each.requires_grad}
    assert {official_name(unet)[name] for name in trained} == set(chosen)


@pytest.mark.parametrize("stage", STAGES)
def test_golden_dropouts(monkeypatch, stage):
    """One draw for the picture's token, then one for each frame's latents, with these shares."""
    recorded = manifest()["tensors"][f"train/stage{stage}_inputs.safetensors"]["_ucg_calls"]
    calls = []
    bernoulli = torch.bernoulli

    def watched(share, **arguments):
        calls.append([list(share.shape), float(share[0])])
        return bernoulli(share, **arguments)

    monkeypatch.setattr(torch, "bernoulli", watched)
    concat = inputs(stage, "cond_concat")[:FRAMES]
    token, vector = inputs(stage, "cond_crossattn")[:1], inputs(stage, "cond_vector")[:1]
    drop_conditions(Conditioning(token, vector, concat), torch.Generator())
    assert calls == recorded["calls"]


def test_golden_surgery():
    prefix = "model.diffusion_model."
    before = {
        ours: golden(SURGERY, f"before.{prefix}{official}.weight")
        for ours, official in ((LABEL, "label_emb.0.0"), (INPUT, "input_blocks.0.0"))
    }
    unet = official_unet(2)
    others = {name: each.clone() for name, each in unet.state_dict().items() if name not in before}
    new = start_from_svd(unet, before, "refiner")
    assert set(new) == set(others)  # what SVD lacks stays
    changed = unet.state_dict()
    for ours, official in ((LABEL, "label_emb.0.0"), (INPUT, "input_blocks.0.0")):
        after = golden(SURGERY, f"after.{prefix}{official}.weight")
        assert torch.equal(changed[ours], after)
    for name, tensor in others.items():
        assert torch.equal(changed[name], tensor), name
