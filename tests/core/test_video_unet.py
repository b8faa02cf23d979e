"""The video UNet at a tiny width with random weights: against diffusers' own, and its switches."""

import copy
import dataclasses
import json

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.resnet import ResnetBlock2D, TemporalResnetBlock
from torch import nn

from hi3d_core.networks import video_unet
from hi3d_core.networks.feature_reuse import FeatureReuse
from hi3d_core.networks.video_unet import (
    ORBIT_UNET,
    REFINER_UNET,
    FeedForwardInParts,
    VideoUNetConfig,
    build_video_unet,
    chunk_feed_forward,
)
from hi3d_core.networks.video_unet_keys import (
    official_sources,
    settings_from_diffusers,
    settings_from_official,
)
from hi3d_core.threads import one_torch_thread

TINY = VideoUNetConfig(
    in_channels=6,
    vector_channels=20,
    block_channels=(64, 96),
    head_channels=16,
    context_channels=24,
    layers_per_block=2,
    frames=4,
)
OTHERS = (
    ORBIT_UNET,
    REFINER_UNET,
    TINY,
    dataclasses.replace(TINY, block_channels=(32, 32, 64), layers_per_block=1),
    dataclasses.replace(TINY, block_channels=(64, 32), layers_per_block=3, transformer_layers=2),
    dataclasses.replace(TINY, block_channels=(32, 32, 64), outer_attention=False),
)


@pytest.fixture(autouse=True)
def one_thread():
    with one_torch_thread():
        yield


def randomize(network: nn.Module) -> nn.Module:
    """Give every weight a value that counts; new networks have alike biases and mix factors."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data.normal_(0.0, fan_in**-0.5, generator=generator)
        if parameter.ndim == 1:
            parameter.data.add_(0.5)
    return network.eval()


@pytest.fixture(scope="module")
def unet():
    return randomize(build_video_unet(TINY))


def example(seed=0, tokens=3, videos=2, height=8, width=4):
    """latents, c_noise, context, vector; not square."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    return (
        draw(videos, TINY.frames, TINY.in_channels, height, width),
        torch.tensor(0.3 + seed),
        draw(videos, tokens, TINY.context_channels),
        draw(videos, TINY.vector_channels),
    )


def run(unet, inputs, **options):
    with torch.no_grad():
        return unet(*inputs, **options)


def difference(ours, other):
    return float(((ours - other).norm() / other.norm()).detach())


@pytest.fixture(scope="module")
def stock(unet):
    """diffusers' own network with the same weights and eps, nothing else of ours."""
    network = UNetSpatioTemporalConditionModel(**unet.config)
    network.add_time_proj = nn.Identity()
    for module in network.modules():
        if isinstance(module, ResnetBlock2D | TemporalResnetBlock):
            module.norm1.eps = module.norm2.eps = 1e-5
    network.load_state_dict(unet.state_dict(), strict=True)
    return network.eval()


class TestForward:
    @pytest.mark.parametrize("tokens", [1, 3])
    def test_is_diffusers_own(self, unet, stock, tokens):
        inputs = example(tokens=tokens)
        with torch.no_grad():
            expected = stock(*inputs).sample
        assert difference(run(unet, inputs), expected) < 2e-6

    def test_gives_contiguous_v_of_the_noisy_channels(self, unet):
        result = run(unet, example())
        assert result.shape == (2, TINY.frames, 4, 8, 4)
        assert result.is_contiguous()

    def test_strides_do_not_matter(self, unet):
        latents, *others = example()
        strided = latents.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
        assert not strided.is_contiguous()
        assert torch.equal(run(unet, (strided, *others)), run(unet, (latents, *others)))

    @pytest.mark.parametrize("tokens", [1, 3])
    def test_videos_do_not_mix(self, unet, tokens):
        inputs = example(tokens=tokens)
        latents, c_noise, context, vector = inputs
        both = run(unet, inputs)
        for video in range(2):
            rows = slice(video, video + 1)
            alone = run(unet, (latents[rows], c_noise, context[rows], vector[rows]))
            assert difference(alone, both[rows]) < 2e-6

    def test_a_noise_level_for_each_video(self, unet):
        latents, c_noise, context, vector = example()
        one = run(unet, (latents, c_noise, context, vector))
        assert torch.equal(run(unet, (latents, c_noise.expand(2), context, vector)), one)
        other = run(unet, (latents, torch.stack([c_noise, c_noise + 1]), context, vector))
        assert difference(other[:1], one[:1]) < 2e-6
        assert difference(other[1:], one[1:]) > 1e-3

    def test_every_input_counts(self, unet):
        inputs = example()
        before = run(unet, inputs)
        for index in range(4):
            changed = list(inputs)
            changed[index] = changed[index] + 0.5
            assert difference(run(unet, changed), before) > 1e-3, index

    def test_inputs_are_left_alone(self, unet):
        inputs = example()
        copies = [tensor.clone() for tensor in inputs]
        run(unet, inputs, reuse=FeatureReuse(2))
        assert all(torch.equal(*pair) for pair in zip(inputs, copies, strict=True))

    def test_half_precision_stays_half(self, unet):
        latents, c_noise, context, vector = example()
        half = build_video_unet(TINY)
        half.load_state_dict(unet.state_dict())
        half.to(torch.bfloat16)
        inputs = (latents.bfloat16(), c_noise, context.bfloat16(), vector.bfloat16())
        result = run(half, inputs)
        assert result.dtype == torch.bfloat16
        assert difference(result.float(), run(unet, example())) < 0.1

    @pytest.mark.parametrize(
        ("index", "change", "message"),
        [
            (0, lambda x: x[:, :, :4], r"latents is .*, expected \(B, F, 6, h, w\)"),
            (0, lambda x: x[0], r"latents is .*, expected \(B, F, 6, h, w\)"),
            (0, lambda x: x[..., :3], "multiples of 2"),
            (2, lambda x: x[:1], r"context is .*, expected \(2, tokens, 24\)"),
            (2, lambda x: x[:, 0], r"context is .*, expected \(2, tokens, 24\)"),
            (3, lambda x: x[:, :-1], r"vector is .*, expected \(2, 20\)"),
        ],
    )
    def test_shapes_that_do_not_fit_are_named(self, unet, index, change, message):
        inputs = list(example())
        inputs[index] = change(inputs[index])
        with pytest.raises(ValueError, match=message):
            run(unet, inputs)


class TestTraining:
    @pytest.mark.parametrize("tokens", [1, 3])
    def test_every_weight_gets_a_gradient(self, tokens):
        network = randomize(build_video_unet(TINY)).train()
        network(*example(tokens=tokens)).square().mean().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            unseen = any(f"attn2.{each}" in name for each in ("to_q", "to_k"))
            # One token: a softmax over one key has no gradient, but the weights take part.
            assert bool(parameter.grad.any()) or (tokens == 1 and (unseen or "norm2" in name)), name

    def test_gradients_are_diffusers_own(self, unet, stock):
        network = copy.deepcopy(unet).requires_grad_()
        inputs = example()
        network(*inputs).square().mean().backward()
        stock(*inputs).sample.square().mean().backward()
        expected = {name: parameter.grad for name, parameter in stock.named_parameters()}
        stock.zero_grad(set_to_none=True)
        scale = torch.stack([gradient.norm() for gradient in expected.values()]).median()
        for name, parameter in network.named_parameters():
            error = (parameter.grad - expected[name]).norm()
            assert error < 1e-4 * max(expected[name].norm(), 1e-2 * scale), name


class TestNorms:
    def test_eps_is_the_official_one_everywhere(self):
        with torch.device("meta"):
            network = build_video_unet(ORBIT_UNET)
        found = {}
        for name, module in network.named_modules():
            if isinstance(module, nn.GroupNorm):
                found.setdefault(module.eps, []).append(name)
        transformers = {name for name in found[1e-6] if ".attentions." in name}
        assert transformers == set(found[1e-6])
        assert len(transformers) == 16
        assert set(found) == {1e-5, 1e-6}
        assert len(found[1e-5]) == 22 * 4 + 1  # residual blocks of two halves, and the last norm


class TestAttention:
    def count(self, unet, monkeypatch, tokens):
        """Calls of torch's attention in one run: (by self-attention or several tokens)."""
        calls = []
        attend = torch.nn.functional.scaled_dot_product_attention

        def counted(query, key, value, **options):
            calls.append((query.shape[2], key.shape[2]))
            return attend(query, key, value, **options)

        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
        run(unet, example(tokens=tokens))
        return calls

    def test_is_torchs_scaled_dot_product(self, unet, monkeypatch):
        layers = sum(isinstance(m, video_unet.Attention) for m in unet.modules())
        assert len(self.count(unet, monkeypatch, tokens=3)) == layers

    def test_one_token_needs_none(self, unet, monkeypatch):
        calls = self.count(unet, monkeypatch, tokens=1)
        layers = sum(isinstance(m, video_unet.Attention) for m in unet.modules())
        assert len(calls) == layers / 2
        assert all(queries == keys for queries, keys in calls)

    @pytest.mark.parametrize("tokens", [1, 3])
    def test_many_sequences_go_in_parts(self, unet, monkeypatch, tokens):
        inputs = example(tokens=tokens)
        with torch.enable_grad():
            expected = unet(*inputs)
        monkeypatch.setattr(video_unet, "_MOST_ROWS", 7)
        with torch.enable_grad():  # one token then goes the long way, too
            assert difference(unet(*inputs), expected) < 2e-6
        calls = []
        attend = torch.nn.functional.scaled_dot_product_attention

        def seen(query, *others, **options):
            calls.append(len(query))
            return attend(query, *others, **options)

        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", seen)
        run(unet, inputs)
        assert max(calls) == 7


def deep_calls(unet):
    """A counter of how often the middle and the first downsampling run, and its hooks."""
    calls = {"middle": 0, "down": 0, "outer": 0}

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    watched = {
        "middle": unet.mid_block,
        "down": unet.down_blocks[0].downsamplers[0],
        "outer": unet.down_blocks[0].resnets[0],
    }
    return calls, [module.register_forward_hook(count(name)) for name, module in watched.items()]


class TestReuse:
    def test_every_call_full_changes_nothing(self, unet):
        reuse = FeatureReuse(1)
        for seed in range(3):
            inputs = example(seed)
            assert torch.equal(run(unet, inputs, reuse=reuse), run(unet, inputs))

    def test_the_first_of_so_many_calls_is_full(self, unet):
        reuse = FeatureReuse(3)
        calls, hooks = deep_calls(unet)
        seen = []
        for seed in range(7):
            run(unet, example(seed), reuse=reuse)
            seen.append(calls["middle"])
        for hook in hooks:
            hook.remove()
        assert seen == [1, 1, 1, 2, 2, 2, 3]
        assert calls["down"] == 3
        assert calls["outer"] == 7

    def test_the_same_input_gives_the_same_from_kept_features(self, unet):
        """What the short way computes is what the full one computes, to the bit."""
        reuse = FeatureReuse(2)
        inputs = example()
        full = run(unet, inputs, reuse=reuse)
        assert torch.equal(run(unet, inputs, reuse=reuse), full)

    def test_another_input_is_seen_but_not_in_full(self, unet):
        reuse = FeatureReuse(2)
        first, second = example(0), example(1)
        kept = run(unet, first, reuse=reuse)
        reused = run(unet, second, reuse=reuse)
        assert difference(reused, kept) > 1e-2
        assert difference(reused, run(unet, second)) > 1e-3
        assert torch.equal(run(unet, second, reuse=reuse), run(unet, second))

    def test_slots_do_not_mix(self, unet):
        shared, alone = FeatureReuse(2), [FeatureReuse(2), FeatureReuse(2)]
        for step in range(4):
            for half in range(2):
                inputs = example(10 * step + half)
                shared.slot = half
                expected = run(unet, inputs, reuse=alone[half])
                assert torch.equal(run(unet, inputs, reuse=shared), expected)

    def test_features_of_other_sizes_are_refused(self, unet):
        reuse = FeatureReuse(2)
        run(unet, example(), reuse=reuse)
        with pytest.raises(ValueError, match="its own slot"):
            run(unet, example(videos=1), reuse=reuse)

    def test_keeps_no_graph(self, unet):
        reuse = FeatureReuse(2)
        unet(*example(), reuse=reuse)
        assert not reuse.recall().requires_grad

    def test_bad_intervals_are_refused(self):
        with pytest.raises(ValueError, match="expected at least 1"):
            FeatureReuse(0)

    @pytest.mark.slow
    def test_compiled_gives_the_same(self):
        """Traced once for full and for short calls, not for every count of calls."""
        network = randomize(build_video_unet(dataclasses.replace(TINY, layers_per_block=1)))
        graphs = []

        def backend(graph, inputs):
            graphs.append(graph)
            return graph.forward

        torch._dynamo.reset()
        compiled = torch.compile(network, backend=backend)
        ours, plain = FeatureReuse(3), FeatureReuse(3)
        counts = []
        for seed in range(5):
            inputs = example(seed, tokens=1)
            expected = run(network, inputs, reuse=plain)
            assert torch.equal(run(compiled, inputs, reuse=ours), expected)
            counts.append(len(graphs))
        torch._dynamo.reset()
        assert counts[1] == counts[-1]


class TestChunks:
    @pytest.mark.parametrize("parts", [2, 3, 1000])
    def test_give_the_same(self, unet, parts):
        inputs = example()
        expected = run(unet, inputs)
        rows = []
        hooks = [
            layer.net[0].register_forward_hook(lambda m, a, out: rows.append(out[..., 0].numel()))
            for layer in unet.modules()
            if isinstance(layer, FeedForwardInParts)
        ]
        assert len(hooks) == 3 * (TINY.layers_per_block * 2 + 2)  # one spatial, two over time
        run(unet, inputs)
        whole, count = max(rows), len(rows)
        rows.clear()
        chunk_feed_forward(unet, parts)
        chunked = run(unet, inputs)
        assert max(rows) == -(-whole // parts)
        assert len(rows) == count * parts
        rows.clear()
        chunk_feed_forward(unet, 1)
        assert torch.equal(run(unet, inputs), expected)
        assert (max(rows), len(rows)) == (whole, count)
        for hook in hooks:
            hook.remove()
        assert difference(chunked, expected) < 1e-6

    def test_there_is_at_least_one_part(self, unet):
        with pytest.raises(ValueError, match="parts is 0, expected at least 1"):
            chunk_feed_forward(unet, 0)


class TestOuterAttention:
    def test_the_outermost_level_can_do_without(self):
        settings = dataclasses.replace(TINY, block_channels=(32, 32, 64), outer_attention=False)
        unet = randomize(build_video_unet(settings))
        down, up = unet.down_blocks, unet.up_blocks
        attends = [
            any(isinstance(module, video_unet.Attention) for module in block.modules())
            for block in (*down, unet.mid_block, *up)
        ]
        assert attends == [False, True, False, True, False, True, False]
        inputs, reuse = example(), FeatureReuse(2)
        first = run(unet, inputs, reuse=reuse)
        calls, hooks = deep_calls(unet)
        assert difference(run(unet, inputs, reuse=reuse), first) < 2e-6
        assert calls == {"middle": 0, "down": 0, "outer": 1}
        for hook in hooks:
            hook.remove()


class TestSettings:
    @pytest.mark.parametrize("settings", OTHERS)
    def test_go_through_json(self, settings):
        stored = json.dumps(dataclasses.asdict(settings))
        assert VideoUNetConfig(**json.loads(stored)) == settings

    def test_the_released_ones_have_as_many_weights(self):
        for settings, weights in ((ORBIT_UNET, 1_524_623_082), (REFINER_UNET, None)):
            with torch.device("meta"):
                network = build_video_unet(settings)
            assert network.settings == settings
            extra = 1280 * (512 - 768) + 9 * 320 * 9  # a shorter vector, nine channels of depth
            expected = 1_524_623_082 + extra if weights is None else weights
            assert sum(parameter.numel() for parameter in network.parameters()) == expected

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"block_channels": (32,)}, "2 levels or more"),
            ({"block_channels": (32, 48)}, "multiples of 32"),
            ({"head_channels": 24}, "of head_channels, 24"),
            ({"norm_groups": 12}, "a divisor of 32"),
        ],
    )
    def test_bad_ones_are_refused(self, change, message):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(TINY, **change)


class TestKeys:
    @pytest.mark.parametrize("settings", OTHERS)
    def test_every_tensor_has_one_place(self, settings):
        with torch.device("meta"):
            state = build_video_unet(settings).state_dict()
        sources = official_sources(settings)
        assert sources.keys() == state.keys()
        assert len({source.name for source in sources.values()}) == len(sources)

    def test_places_are_the_official_ones(self):
        """One of each kind; the recorded key lists (test_golden_*) hold them all."""
        sources = official_sources(ORBIT_UNET)
        first = "down_blocks.1.resnets.0."
        attention = "down_blocks.1.attentions.0."
        expected = {
            "conv_in.weight": "input_blocks.0.0.weight",
            "time_embedding.linear_2.bias": "time_embed.2.bias",
            "add_embedding.linear_1.weight": "label_emb.0.0.weight",
            "down_blocks.0.downsamplers.0.conv.weight": "input_blocks.3.0.op.weight",
            f"{first}spatial_res_block.conv1.weight": "input_blocks.4.0.in_layers.2.weight",
            f"{first}spatial_res_block.norm2.bias": "input_blocks.4.0.out_layers.0.bias",
            f"{first}spatial_res_block.conv_shortcut.bias": "input_blocks.4.0.skip_connection.bias",
            f"{first}temporal_res_block.conv2.bias": (
                "input_blocks.4.0.time_stack.out_layers.3.bias"
            ),
            f"{first}time_mixer.mix_factor": "input_blocks.4.0.time_mixer.mix_factor",
            f"{attention}transformer_blocks.0.attn2.to_k.weight": (
                "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
            ),
            f"{attention}temporal_transformer_blocks.0.ff_in.net.2.bias": (
                "input_blocks.4.1.time_stack.0.ff_in.net.2.bias"
            ),
            f"{attention}time_pos_embed.linear_2.bias": "input_blocks.4.1.time_pos_embed.2.bias",
            "down_blocks.3.resnets.1.time_mixer.mix_factor": (
                "input_blocks.11.0.time_mixer.mix_factor"
            ),
            "mid_block.attentions.0.proj_in.weight": "middle_block.1.proj_in.weight",
            "mid_block.resnets.1.temporal_res_block.norm1.bias": (
                "middle_block.2.time_stack.in_layers.0.bias"
            ),
            "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.1.conv.weight",
            "up_blocks.1.resnets.0.time_mixer.mix_factor": (
                "output_blocks.3.0.time_mixer.mix_factor"
            ),
            "up_blocks.1.upsamplers.0.conv.bias": "output_blocks.5.2.conv.bias",
            "up_blocks.3.attentions.2.time_mixer.mix_factor": (
                "output_blocks.11.1.time_mixer.mix_factor"
            ),
            "conv_norm_out.bias": "out.0.bias",
            "conv_out.weight": "out.2.weight",
        }
        assert {name: sources[name].name for name in expected} == expected

    @pytest.mark.parametrize("settings", OTHERS)
    def test_settings_are_told_from_shapes(self, settings):
        with torch.device("meta"):
            state = build_video_unet(settings).state_dict()
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        official = {
            source.name: source.official_shape(shapes[name])
            for name, source in official_sources(settings).items()
        }
        expected = dataclasses.replace(settings, frames=16)
        assert settings_from_diffusers(shapes, settings.head_channels) == expected
        assert settings_from_official(official, settings.head_channels) == expected

    @pytest.mark.parametrize("read", [settings_from_official, settings_from_diffusers])
    def test_other_networks_are_refused(self, read):
        with pytest.raises(ValueError, match="video UNet"):
            read({"encoder.conv_in.weight": (128, 3, 3, 3)})
