"""The video UNet and its key map against the official code's tensors, and mistakes put back."""

import json
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D, TemporalResnetBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from torch import Tensor, nn

from hi3d_core.networks.video_unet import (
    ORBIT_UNET,
    REFINER_UNET,
    BranchMixer,
    VideoUNet,
    build_video_unet,
)
from hi3d_core.networks.video_unet_keys import official_sources, settings_from_official
from hi3d_core.threads import one_torch_thread

from .goldens import golden, manifest, need, official_state, relative_error, settings

TOLERANCE = 2e-5  # asked for: 1e-4
FIRST_BLOCK = 1e-6  # after one block little rounding has gathered: wrong norms show there
PREFIX = "model.diffusion_model."
STAGES = (1, 2)
CHECKPOINTS = {1: "stage1/first_stage.pt", 2: "stage2/second_stage.pt"}
RECORDED_FRAMES = [3, 20]  # of the activations, in 2 x 16 frames


def inputs(stage: int, name: str) -> Tensor:
    return golden(f"stage{stage}/inputs.safetensors", name)


def outputs(stage: int, name: str) -> Tensor:
    return golden(f"stage{stage}/outputs.safetensors", name)


def load(path: str) -> VideoUNet:
    state = official_state(path, PREFIX)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    # A set's networks differ in width, and all have the same numbers of heads.
    heads = settings()["diffusers_equivalent"]["num_attention_heads"][0]
    width = settings_from_official(shapes, head_channels=1).block_channels[0]
    found = settings_from_official(shapes, width // heads)
    with torch.device("meta"):
        unet = build_video_unet(found)
    ours = {name: each.extract(state[each.name]) for name, each in official_sources(found).items()}
    unet.load_state_dict(ours, assign=True, strict=True)
    return unet.eval()


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are too small for two threads to help, and waiting ones take others' time."""
    with one_torch_thread():
        yield


@pytest.fixture(scope="module")
def unets():
    """Path -> network, loaded once; each test undoes what it changes."""
    return cache(load)


@pytest.fixture(scope="module")
def recordings(unets):
    """Stage -> (output, official block -> activation) of probe 2."""

    def record(stage: int) -> tuple[Tensor, dict[str, Tensor]]:
        recorded = manifest()["tensors"][f"stage{stage}/outputs.safetensors"]
        names = [name.removeprefix("act.") for name in recorded if name.startswith("act.")]
        unet = unets(CHECKPOINTS[stage])
        with one_torch_thread(), activations(unet, names) as found:
            output = probe2(unet, stage)
        return output, found

    return cache(record)


def as_videos(*parts: Tensor) -> Tensor:
    """(videos * frames, C, h, w) parts -> (videos, frames, all channels, h, w)."""
    return torch.cat(parts, 1).unflatten(0, (-1, settings()["unet"]["num_frames"]))


@torch.no_grad()
def probe2(unet: VideoUNet, stage: int, videos=slice(0, 2)) -> Tensor:
    latents = as_videos(inputs(stage, "probe2_x"), inputs(stage, "probe2_concat"))
    context, vector = inputs(stage, "probe2_context"), inputs(stage, "probe2_vector")
    c_noise = 0.25 * torch.tensor(3.0).log()
    return unet(latents[videos], c_noise, context[videos], vector[videos]).flatten(0, 1)


LAST = slice(1, 2)  # the second video alone, for mistakes that show in it


def last_error(unet: VideoUNet, stage: int, recorded: str = "probe2_network") -> float:
    official = as_videos(outputs(stage, recorded))[LAST].flatten(0, 1)
    return relative_error(probe2(unet, stage, LAST), official)


def module_of(unet: VideoUNet, official: str) -> nn.Module:
    """The module of ours whose output is that of an official block."""
    named = {
        "time_embed": unet.time_embedding,
        "label_emb": unet.add_embedding,
        "middle_block": unet.mid_block,
        "input_blocks.0": unet.conv_in,
    }
    if official in named:
        return named[official]
    side, _, number = official.rpartition(".")
    layers = unet.settings.layers_per_block
    if side == "input_blocks":
        level, layer = divmod(int(number) - 1, layers + 1)
        block = unet.down_blocks[level]
        if layer == layers:
            return block.downsamplers[0]
    else:
        level, layer = divmod(int(number), layers + 1)
        block = unet.up_blocks[level]
        if layer == layers and block.upsamplers is not None:
            return block.upsamplers[0]
    return (block.attentions if hasattr(block, "attentions") else block.resnets)[layer]


@contextmanager
def activations(unet: VideoUNet, names: list[str]):
    """Official block -> its output, once the network has run on both videos, as was recorded."""
    found = {}

    def keep(name):
        def hook(module, arguments, output):
            output = output[0] if isinstance(output, tuple) else output
            if output.ndim == 2:  # ours embed each video once, the official ones each frame
                found[name] = output.repeat_interleave(settings()["unet"]["num_frames"], 0)
            else:
                found[name] = output[RECORDED_FRAMES]

        return hook

    with hooked([module_of(unet, name).register_forward_hook(keep(name)) for name in names]):
        yield found


@contextmanager
def hooked(hooks):
    assert hooks
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class EnoughSeen(Exception):
    pass


def first_block_error(unet: VideoUNet, stage: int) -> float:
    """Of the first residual block and transformer; the rest is not run."""

    def stop(module, arguments):
        raise EnoughSeen

    second = unet.down_blocks[0].resnets[1].register_forward_pre_hook(stop)
    wanted = activations(unet, ["input_blocks.1"])
    with hooked([second]), wanted as found, pytest.raises(EnoughSeen):
        probe2(unet, stage)
    return relative_error(found["input_blocks.1"], outputs(stage, "act.input_blocks.1"))


@pytest.mark.parametrize(("stage", "released"), [(1, ORBIT_UNET), (2, REFINER_UNET)])
def test_golden_keys_of_the_released_unet(stage, released):
    listed = json.loads(need(f"stage{stage}/stage{stage}_full_keys.json").read_text())["keys"]
    shapes = {
        name.removeprefix(PREFIX): tuple(shape)
        for name, shape in listed.items()
        if name.startswith(PREFIX)
    }
    assert settings_from_official(shapes) == released
    with torch.device("meta"):
        state = build_video_unet(released).state_dict()
    sources = official_sources(released)
    assert sources.keys() == state.keys()
    expected = {
        each.name: each.official_shape(tuple(state[name].shape)) for name, each in sources.items()
    }
    assert expected == shapes
    assert len(expected) == len(sources)


@pytest.mark.parametrize("stage", STAGES)
def test_golden_settings_and_keys_of_the_tiny_unet(stage):
    state = official_state(CHECKPOINTS[stage], PREFIX)
    unet = settings()["unet"]
    found = settings_from_official(
        {name: tuple(tensor.shape) for name, tensor in state.items()}, unet["num_head_channels"]
    )
    assert found.block_channels == tuple(unet["model_channels"] * m for m in unet["channel_mult"])
    assert found.in_channels == unet["in_channels"][str(stage)]
    assert found.vector_channels == unet["adm_in_channels"][str(stage)]
    assert found.context_channels == unet["context_dim"]
    assert found.layers_per_block == unet["num_res_blocks"]
    assert found.transformer_layers == unet["transformer_depth"]
    assert found.frames == unet["num_frames"]
    assert {each.name for each in official_sources(found).values()} == state.keys()


@pytest.mark.parametrize("stage", STAGES)
def test_golden_network_in_the_sampler(unets, stage):
    """One token, and both halves of guidance: without the condition and with it."""
    token, concat = outputs(stage, "crossattn"), outputs(stage, "concat")
    contexts = torch.cat([torch.zeros_like(token), token])
    concats = torch.stack([torch.zeros_like(concat), concat])
    vectors = outputs(stage, "vector").expand(2, -1)
    errors = []
    for sigma, c_noise, official in zip(
        inputs(stage, "probe_sigmas"),
        outputs(stage, "probe_c_noise"),
        outputs(stage, "probe_network"),
        strict=True,
    ):
        scale = torch.sqrt(1 + sigma**2)
        noisy = inputs(stage, "probe_x_unit") * scale * (1 / scale)
        latents = torch.cat([noisy.expand(2, *noisy.shape), concats], dim=2)
        with torch.no_grad():
            ours = unets(CHECKPOINTS[stage])(latents, c_noise, contexts, vectors)
        errors.append(relative_error(ours.flatten(0, 1), official))
    print(f"stage {stage}, errors in the sampler: {errors}")
    assert max(errors) <= TOLERANCE, errors


@pytest.mark.parametrize("stage", STAGES)
def test_golden_network_with_several_tokens(recordings, stage):
    error = relative_error(recordings(stage)[0], outputs(stage, "probe2_network"))
    print(f"stage {stage}, error with several tokens: {error}")
    assert error <= TOLERANCE


@pytest.mark.parametrize("stage", STAGES)
def test_golden_activations(recordings, stage):
    found = recordings(stage)[1]
    if not found:
        pytest.skip("this set holds no activations (act.*)")
    errors = {name: relative_error(found[name], outputs(stage, f"act.{name}")) for name in found}
    print(f"stage {stage}, errors of activations: {errors}")
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize("stage", STAGES)
def test_golden_first_block_to_rounding(unets, stage):
    error = first_block_error(unets(CHECKPOINTS[stage]), stage)
    print(f"stage {stage}, error of the first block: {error}")
    assert error <= FIRST_BLOCK


def oblong_error(unet: VideoUNet, stage: int, videos=slice(0, 2)) -> float:
    path = f"unet64/stage{stage}_io.safetensors"
    latents = as_videos(golden(path, "x"), golden(path, "concat"))[videos]
    context, vector = golden(path, "context")[videos], golden(path, "vector")[videos]
    with torch.no_grad():
        ours = unet(latents, torch.tensor(-0.3), context, vector)
    return relative_error(ours, as_videos(golden(path, "network"))[videos])


@pytest.mark.parametrize("stage", STAGES)
def test_golden_network_of_64_channels_that_is_not_square(unets, stage):
    error = oblong_error(unets(f"unet64/stage{stage}_unet.pt"), stage)
    print(f"stage {stage}, error of 64 channels: {error}")
    assert error <= TOLERANCE


# Mistakes, put back. Each must be seen; where one does not depend on the stage, in stage 1.


@pytest.mark.parametrize("stage", STAGES)
def test_golden_trap_stock_eps_of_the_residual_norms(unets, stage, monkeypatch):
    unet = unets(CHECKPOINTS[stage])
    norms = [
        norm
        # diffusers has the right one at the deepest level's way down and in the middle.
        for block in [*unet.down_blocks[:-1], *unet.up_blocks]
        for module in block.modules()
        if isinstance(module, ResnetBlock2D | TemporalResnetBlock)
        for norm in (module.norm1, module.norm2)
    ]
    levels, layers = len(unet.settings.block_channels), unet.settings.layers_per_block
    assert len(norms) == 4 * ((levels - 1) * layers + levels * (layers + 1))  # 72 as released
    for norm in norms:
        assert norm.eps == 1e-5
        monkeypatch.setattr(norm, "eps", 1e-6)
    assert first_block_error(unet, stage) > 3 * FIRST_BLOCK


@pytest.mark.parametrize("stage", STAGES)
def test_golden_trap_eps_of_the_transformers_norms(unets, stage, monkeypatch):
    """The official one is 1e-6 there: 1e-5 in these too is farther off."""
    unet = unets(CHECKPOINTS[stage])
    right = first_block_error(unet, stage)
    for module in unet.modules():
        if isinstance(module, TransformerSpatioTemporalModel):
            assert module.norm.eps == 1e-6
            monkeypatch.setattr(module.norm, "eps", 1e-5)
    assert first_block_error(unet, stage) > max(FIRST_BLOCK, 3 * right)


def mixers_of(unet: VideoUNet) -> list[BranchMixer]:
    return [module for module in unet.modules() if isinstance(module, BranchMixer)]


def test_golden_trap_merge_factor(unets):
    unet = unets(CHECKPOINTS[1])

    def swap(module, arguments, options):
        swapped = {"x_spatial": options["x_temporal"], "x_temporal": options["x_spatial"]}
        return arguments, {**options, **swapped}

    with hooked(
        [each.register_forward_pre_hook(swap, with_kwargs=True) for each in mixers_of(unet)]
    ):
        assert last_error(unet, 1) > 100 * TOLERANCE


def test_golden_trap_image_only_indicator(unets):
    """The official code can take frames for single images; then the spatial branch counts alone."""
    unet = unets(CHECKPOINTS[1])

    def only_spatial(module, arguments, options, output):
        return options["x_spatial"]

    with hooked(
        [each.register_forward_hook(only_spatial, with_kwargs=True) for each in mixers_of(unet)]
    ):
        assert last_error(unet, 1, "probe2_network_image_only") <= TOLERANCE
        assert last_error(unet, 1) > 100 * TOLERANCE


def test_golden_trap_swapped_vector_segments(unets):
    unet = unets(CHECKPOINTS[1])

    def swap(module, arguments):
        return arguments[0].unflatten(1, (-1, 256)).flip(1).flatten(1)

    with hooked([unet.add_embedding.register_forward_pre_hook(swap)]):
        assert last_error(unet, 1) > 100 * TOLERANCE


def test_golden_trap_context_of_the_other_video(unets):
    """The temporal transformers attend to their own video's tokens."""
    unet = unets(CHECKPOINTS[1])

    def exchange(module, arguments, options):
        context = options["encoder_hidden_states"]
        return arguments, {**options, "encoder_hidden_states": context.roll(len(context) // 2, 0)}

    temporal = [
        module.register_forward_pre_hook(exchange, with_kwargs=True)
        for name, module in unet.named_modules()
        if name.endswith("temporal_transformer_blocks.0")
    ]
    with hooked(temporal):
        wrong = probe2(unet, 1)
    assert relative_error(wrong, outputs(1, "probe2_network")) > 100 * TOLERANCE


def test_golden_trap_number_of_heads(unets, monkeypatch):
    unet = unets("unet64/stage1_unet.pt")
    for module in unet.modules():
        if isinstance(module, Attention):
            monkeypatch.setattr(module, "heads", module.heads // 2)
    assert oblong_error(unet, 1, LAST) > 100 * TOLERANCE
