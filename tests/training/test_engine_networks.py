"""The real video UNet under the engine: checkpoints the loader reads, less memory, LoRA."""

import dataclasses
import json

import pytest
import torch
from diffusers.models.resnet import SpatioTemporalResBlock
from safetensors.torch import load_file

from hi3d_core.weights.load import load_video_model
from training.engine.loop import train
from training.engine.settings import LoraSettings
from training.engine.trained import TrainedLoss, trainable

from ..core.tiny_models import CHANNELS, ENCODER, UNET, VAE, tiny_model
from .engine_recipes import SineRecipe, settings

FRAMES = 2


class UNetRecipe:
    """The orbit's UNet in the tiny model learns to repeat its condition."""

    def __init__(self, folder=None):
        self.model = tiny_model("orbit")
        self.unet = self.model.unet.requires_grad_(True).train()

    def networks(self):
        return self.unet

    def batch(self, step, rank, world):
        generator = torch.Generator().manual_seed(step)
        return {
            "latents": torch.randn(1, FRAMES, 8, 8, 8, generator=generator),
            "vector": torch.randn(1, CHANNELS["orbit"][1], generator=generator),
            "context": torch.randn(1, 1, UNET["context_channels"], generator=generator),
        }

    def loss(self, batch):
        out = self.unet(batch["latents"], torch.tensor(0.3), batch["context"], batch["vector"])
        loss = (out - batch["latents"][:, :, :4]).square().mean()
        return loss, {"repeat": float(loss.detach())}

    def samples(self):
        return None

    def state(self):
        parts = {
            "unet": self.unet,
            "vae": self.model.vae,
            "image_encoder": self.model.image_encoder,
        }
        return {
            f"{part}.{name}": each
            for part, network in parts.items()
            for name, each in network.state_dict().items()
        }

    def metadata(self):
        parts = {"unet": self.unet.settings, "vae": VAE, "image_encoder": ENCODER}
        told = {part: dataclasses.asdict(each) for part, each in parts.items()}
        return {"hi3d_stage": "orbit", "hi3d_settings": json.dumps(told)}


def gradients(recipe, checkpointing):
    loss = TrainedLoss(recipe, settings({"gradient_checkpointing": checkpointing}))
    calls = [0]

    def count(*_):
        calls[0] += 1

    for module in recipe.unet.modules():
        if isinstance(module, SpatioTemporalResBlock):
            module.register_forward_pre_hook(count)  # recomputing may end before its last line
    loss(recipe.batch(0, 0, 1))[0].backward()
    return {name: each.grad for name, each in recipe.unet.named_parameters()}, calls[0]


def test_gradient_checkpointing_computes_twice_and_changes_nothing():
    plain, once = gradients(UNetRecipe(), False)
    saved, twice = gradients(UNetRecipe(), True)
    # The middle block's first residual block is outside of diffusers' checkpoints.
    assert once < twice <= 2 * once
    assert twice >= 2 * once - 1
    for name, value in plain.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-7)


def test_gradient_checkpointing_that_nobody_offers_is_refused():
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        TrainedLoss(SineRecipe(), settings({"gradient_checkpointing": True}))


def test_the_loader_reads_what_was_trained(tmp_path):
    recipe = UNetRecipe()
    train(recipe, settings({"steps": 2}), tmp_path, quiet=True)
    at = tmp_path / "checkpoints" / "step_0000002"
    for name in ("weights", "ema"):
        model = load_video_model(at / f"{name}.safetensors", "orbit")
        written = load_file(at / f"{name}.safetensors")
        for key, value in model.unet.state_dict().items():
            assert torch.equal(value, written[f"unet.{key}"])
        close = all(
            torch.equal(value, recipe.unet.state_dict()[key])
            for key, value in model.unet.state_dict().items()
        )
        assert close == (name == "weights")


LORA = LoraSettings(rank=2, scale=0.5)


def test_lora_begins_at_the_given_weights_and_trains_nothing_else():
    plain, beside = UNetRecipe(), UNetRecipe()
    batch = plain.batch(0, 0, 1)
    module = TrainedLoss(beside, dataclasses.replace(settings(), lora=LORA))
    torch.testing.assert_close(plain.loss(batch)[0], module(batch)[0], rtol=1e-6, atol=0)
    names = trainable(module)
    assert names
    assert all(name.startswith("lora.pairs.") for name in names)
    endings = ("to_q", "to_k", "to_v", "to_out/0")
    assert all(name.split(".")[2].endswith(endings) for name in names)


def test_lora_is_written_merged_and_resumes(tmp_path):
    chosen = dataclasses.replace(settings({"steps": 4, "save_every": 2}), lora=LORA)
    start = {name: each.clone() for name, each in UNetRecipe().unet.state_dict().items()}
    whole = UNetRecipe()
    train(whole, chosen, tmp_path / "whole", quiet=True)
    after = whole.unet.state_dict()
    assert all(torch.equal(start[name], after[name]) for name in start)  # only beside them

    # A network with the written weights computes what the layers with their matrices do.
    written = load_file(tmp_path / "whole" / "checkpoints" / "step_0000004" / "weights.safetensors")
    alone = UNetRecipe()
    alone.unet.load_state_dict({name: written[f"unet.{name}"] for name in start})
    changed = [name for name in start if not torch.equal(start[name], written[f"unet.{name}"])]
    assert changed
    assert all("to_" in name for name in changed)
    batch = whole.batch(9, 0, 1)
    torch.testing.assert_close(alone.loss(batch)[0], whole.loss(batch)[0], rtol=1e-5, atol=1e-6)
    assert not torch.equal(UNetRecipe().loss(batch)[0], whole.loss(batch)[0])

    class Broken(UNetRecipe):
        def batch(self, step, rank, world):
            if step == 3:
                raise KeyError(step)
            return super().batch(step, rank, world)

    with pytest.raises(KeyError):
        train(Broken(), chosen, tmp_path / "broken", quiet=True)
    train(UNetRecipe(), chosen, tmp_path / "broken", resume="must", quiet=True)
    for name in ("weights.safetensors", "ema.safetensors", "training.safetensors"):
        files = [
            tmp_path / run / "checkpoints" / "step_0000004" / name for run in ("whole", "broken")
        ]
        first, second = map(load_file, files)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_lora_that_fits_no_layer_is_refused():
    wrong = LoraSettings(rank=2, layers=("to_x",))
    with pytest.raises(ValueError, match="to_x"):
        TrainedLoss(UNetRecipe(), dataclasses.replace(settings(), lora=wrong))
