"""The video UNet and its key map against the official code's tensors, and mistakes put back."""

import json

import pytest
import torch
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


@pytest.fixture
def unets(cache={}):  # noqa: B006 (kept over all tests; each test undoes what it changes)
    def unet(path: str) -> VideoUNet:
        if path not in cache:
            cache[path] = load(path)
        return cache[path]

    return unet


def as_videos(*parts: Tensor) -> Tensor:
    """(videos * frames, C, h, w) parts -> (videos, frames, all channels, h, w)."""
    return torch.cat(parts, 1).unflatten(0, (-1, settings()["unet"]["num_frames"]))


@torch.no_grad()
def probe2(unet: VideoUNet, stage: int, vector: Tensor | None = None) -> Tensor:
    latents = as_videos(inputs(stage, "probe2_x"), inputs(stage, "probe2_concat"))
    vector = inputs(stage, "probe2_vector") if vector is None else vector
    c_noise = 0.25 * torch.tensor(3.0).log()
    return unet(latents, c_noise, inputs(stage, "probe2_context"), vector).flatten(0, 1)


def probe2_error(unet: VideoUNet, stage: int) -> float:
    return relative_error(probe2(unet, stage), outputs(stage, "probe2_network"))


def first_block_error(unet: VideoUNet, stage: int) -> float:
    found = activations(unet, stage, ["input_blocks.1"])["input_blocks.1"]
    return relative_error(found, outputs(stage, "act.input_blocks.1"))


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


def activations(unet: VideoUNet, stage: int, names: list[str]) -> dict[str, Tensor]:
    """What official blocks give in probe 2, as recorded: two frames of pictures, all of vectors."""
    found = {}

    def keep(name):
        def hook(module, arguments, output):
            output = output[0] if isinstance(output, tuple) else output
            if output.ndim == 2:  # ours embed each video once, the official ones each frame
                found[name] = output.repeat_interleave(settings()["unet"]["num_frames"], 0)
            else:
                found[name] = output[RECORDED_FRAMES]

        return hook

    hooks = [module_of(unet, name).register_forward_hook(keep(name)) for name in names]
    probe2(unet, stage)
    for hook in hooks:
        hook.remove()
    return found


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
    expected = {each.name: each.official_shape(tuple(state[n].shape)) for n, each in sources.items()}
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
    assert max(errors) <= TOLERANCE, errors


@pytest.mark.parametrize("stage", STAGES)
def test_golden_network_with_several_tokens(unets, stage):
    assert probe2_error(unets(CHECKPOINTS[stage]), stage) <= TOLERANCE


@pytest.mark.parametrize("stage", STAGES)
def test_golden_activations(unets, stage):
    recorded = manifest()["tensors"][f"stage{stage}/outputs.safetensors"]
    names = [name.removeprefix("act.") for name in recorded if name.startswith("act.")]
    if not names:
        pytest.skip("this set holds no activations (act.*)")
    found = activations(unets(CHECKPOINTS[stage]), stage, names)
    errors = {name: relative_error(found[name], outputs(stage, f"act.{name}")) for name in names}
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize("stage", STAGES)
def test_golden_first_block_to_rounding(unets, stage):
    assert first_block_error(unets(CHECKPOINTS[stage]), stage) <= FIRST_BLOCK


def narrow_error(unet: VideoUNet, stage: int) -> float:
    path = f"unet64/stage{stage}_io.safetensors"
    latents = as_videos(golden(path, "x"), golden(path, "concat"))
    with torch.no_grad():
        ours = unet(latents, torch.tensor(-0.3), golden(path, "context"), golden(path, "vector"))
    return relative_error(ours.flatten(0, 1), golden(path, "network"))


@pytest.mark.parametrize("stage", STAGES)
def test_golden_network_of_64_channels_that_is_not_square(unets, stage):
    assert narrow_error(unets(f"unet64/stage{stage}_unet.pt"), stage) <= TOLERANCE


def spatial_only(mixer, arguments, options, output):
    """As the official code treats single images; here the second video."""
    spatial = options["x_spatial"].clone()
    if spatial.ndim == 5:
        spatial[0] = output[0]
    else:
        half = len(spatial) // 2
        spatial[:half] = output[:half]
    return spatial


@pytest.mark.parametrize("stage", STAGES)
def test_golden_trap_image_only_indicator(unets, stage):
    unet = unets(CHECKPOINTS[stage])
    hooks = [
        module.register_forward_hook(spatial_only, with_kwargs=True)
        for module in unet.modules()
        if isinstance(module, BranchMixer)
    ]
    wrong = probe2(unet, stage)
    for hook in hooks:
        hook.remove()
    assert relative_error(wrong, outputs(stage, "probe2_network_image_only")) <= TOLERANCE
    assert relative_error(wrong, outputs(stage, "probe2_network")) > 100 * TOLERANCE


@pytest.mark.parametrize("stage", STAGES)
def test_golden_trap_stock_eps_of_the_residual_norms(unets, stage, monkeypatch):
    unet = unets(CHECKPOINTS[stage])
    # diffusers: 1e-6 in all but the deepest level's way down and the middle.
    count = 0
    blocks = [*unet.down_blocks[:-1], *unet.up_blocks]
    for module in (module for block in blocks for module in block.modules()):
        if isinstance(module, ResnetBlock2D | TemporalResnetBlock):
            for norm in (module.norm1, module.norm2):
                assert norm.eps == 1e-5
                monkeypatch.setattr(norm, "eps", 1e-6)
                count += 1
    levels, layers = len(unet.settings.block_channels), unet.settings.layers_per_block
    assert count == 4 * ((levels - 1) * layers + levels * (layers + 1))  # 72 of the released ones
    assert first_block_error(unet, stage) > 3 * FIRST_BLOCK


@pytest.mark.parametrize("stage", STAGES)
def test_golden_trap_eps_of_the_transformers_norms(unets, stage, monkeypatch):
    """The official one is 1e-6 there: 1e-5 in these too is farther off."""
    unet = unets(CHECKPOINTS[stage])
    right = first_block_error(unet, stage)
    for module in unet.modules():
        if isinstance(module, TransformerSpatioTemporalModel):
            monkeypatch.setattr(module.norm, "eps", 1e-5)
    assert first_block_error(unet, stage) > max(FIRST_BLOCK, 3 * right)


@pytest.mark.parametrize("stage", STAGES)
def test_golden_trap_merge_factor(unets, stage):
    unet = unets(CHECKPOINTS[stage])
    mixers = [module for module in unet.modules() if isinstance(module, BranchMixer)]
    for mixer in mixers:
        mixer.mix_factor.data.neg_()  # sigmoid(-a) = 1 - sigmoid(a)
    wrong = probe2_error(unet, stage)
    for mixer in mixers:
        mixer.mix_factor.data.neg_()
    assert wrong > 100 * TOLERANCE


@pytest.mark.parametrize("stage", STAGES)
def test_golden_trap_swapped_vector_segments(unets, stage):
    swapped = inputs(stage, "probe2_vector").unflatten(1, (-1, 256)).flip(1).flatten(1)
    wrong = probe2(unets(CHECKPOINTS[stage]), stage, swapped)
    assert relative_error(wrong, outputs(stage, "probe2_network")) > 100 * TOLERANCE


@pytest.mark.parametrize("stage", STAGES)
def test_golden_trap_number_of_heads(unets, stage):
    unet = unets(f"unet64/stage{stage}_unet.pt")
    heads = [(module, module.heads) for module in unet.modules() if hasattr(module, "heads")]
    for module, count in heads:
        module.heads = count // 2
    wrong = narrow_error(unet, stage)
    for module, count in heads:
        module.heads = count
    assert wrong > 100 * TOLERANCE


@pytest.mark.parametrize("stage", STAGES)
def test_golden_trap_context_of_the_other_video(unets, stage):
    """The temporal transformers attend to their own video's tokens."""
    unet = unets(CHECKPOINTS[stage])

    def swap(module, arguments):
        hidden, context, *rest = arguments
        return hidden, context, *rest

    def swap_options(module, arguments, options):
        context = options["encoder_hidden_states"]
        half = len(context) // 2
        return arguments, {**options, "encoder_hidden_states": context.roll(half, 0)}

    hooks = [
        block.register_forward_pre_hook(swap_options, with_kwargs=True)
        for name, block in unet.named_modules()
        if name.endswith("temporal_transformer_blocks.0")
    ]
    assert hooks
    wrong = probe2_error(unet, stage)
    for hook in hooks:
        hook.remove()
    assert wrong > 100 * TOLERANCE
