import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from hi3d_core.networks import vae_keys
from hi3d_core.networks.vae import VaeConfig, build_vae, decode, encode_moments, tiling

from .official_naming import check_map, read_official, shapes_of, to_official
from .tiny_models import filled

TINY = VaeConfig(channels=(32, 32, 64, 64), layers_per_block=1)
OTHER = VaeConfig(channels=(32, 96, 64), layers_per_block=2, latent_channels=3)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def vae():
    return filled(build_vae(TINY), torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def images():
    return random(4, 3, 16, 24).clamp(-1, 1)


@pytest.mark.parametrize("groups", [0, 24])
def test_groups_that_do_not_divide_the_channels(groups):
    with pytest.raises(ValueError, match=f"{groups or 'norm_groups is 0'}"):
        VaeConfig(channels=(32, 64), norm_groups=groups)


@pytest.mark.parametrize("settings", [TINY, OTHER], ids=["tiny", "other"])
def test_official_naming_round_trip(settings):
    network = filled(build_vae(settings), torch.Generator().manual_seed(2))
    sources = vae_keys.official_sources(settings)
    official = to_official(network, sources)
    assert vae_keys.settings_from_official(shapes_of(official)) == settings
    assert vae_keys.settings_from_diffusers(shapes_of(network.state_dict())) == settings
    again = read_official(build_vae, settings, sources, official)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_attention_is_made_of_convolutions_in_the_file(vae):
    official = to_official(vae, vae_keys.official_sources(TINY))

    def convolve(x, name):
        name = f"decoder.mid.attn_1.{name}"
        return functional.conv2d(x, official[f"{name}.weight"], official[f"{name}.bias"])

    x = random(2, 64, 3, 5)
    scale, shift = (official[f"decoder.mid.attn_1.norm.{kind}"] for kind in ("weight", "bias"))
    inner = functional.group_norm(x, 32, scale, shift, 1e-6)
    q, k, v = (convolve(inner, name).flatten(2) for name in "qkv")
    weights = torch.softmax(q.transpose(1, 2) @ k / 64**0.5, dim=-1)
    expected = x + convolve((v @ weights.transpose(1, 2)).view_as(x), "proj_out")
    ours = vae.decoder.mid_block.attentions[0](x)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_official_decoder_counts_levels_from_the_largest():
    settings = VaeConfig(channels=(32, 64, 96))
    sources = vae_keys.official_sources(settings)
    assert sources["decoder.up_blocks.0.resnets.0.conv1.weight"].name == (
        "decoder.up.2.block.0.conv1.weight"
    )
    assert sources["decoder.up_blocks.0.upsamplers.0.conv.bias"].name == (
        "decoder.up.2.upsample.conv.bias"
    )
    assert not any("up.0.upsample" in source.name for source in sources.values())


def test_the_released_network_has_the_parameters_of_stable_diffusions():
    settings = VaeConfig()
    with torch.device("meta"):
        network = build_vae(settings)
    assert sum(parameter.numel() for parameter in network.parameters()) == 83_653_863
    assert not check_map(
        build_vae,
        settings,
        vae_keys.official_sources(settings),
        shapes_of(to_official(network, vae_keys.official_sources(settings))),
    )


def test_norms_have_the_official_eps(vae):
    norms = [module for module in vae.modules() if isinstance(module, nn.GroupNorm)]
    assert norms
    assert {norm.eps for norm in norms} == {1e-6}


def test_moments_are_those_of_the_posterior(vae, images):
    mean, log_variance = encode_moments(vae, images)
    posterior = vae.encode(images).latent_dist
    assert mean.shape == log_variance.shape == (4, 4, 2, 3)
    torch.testing.assert_close(mean, posterior.mode(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_variance.exp(), posterior.var, rtol=1e-4, atol=1e-6)


def test_log_variances_are_cut_as_officially(vae, images):
    with torch.no_grad():
        bias = vae.quant_conv.bias.clone()
        vae.quant_conv.bias[4:6], vae.quant_conv.bias[6:] = 1e3, -1e3
        _, log_variance = encode_moments(vae, images)
        vae.quant_conv.bias.copy_(bias)
    assert torch.equal(log_variance[:, :2], torch.full_like(log_variance[:, :2], 20))
    assert torch.equal(log_variance[:, 2:], torch.full_like(log_variance[:, 2:], -30))


@pytest.mark.parametrize("rows", [3, 9])
def test_how_many_at_once_does_not_matter(vae, images, rows):
    told = []
    one, many = encode_moments(vae, images), encode_moments(vae, images, rows)
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-4)
    latents = random(4, 4, 2, 3)
    pictures = decode(vae, latents, rows, on_step=lambda *step: told.append(step))
    assert pictures.shape == (4, 3, 16, 24)
    torch.testing.assert_close(decode(vae, latents), pictures, rtol=1e-4, atol=1e-4)
    assert told == [(count, 4) for count in range(1, 5)]


def test_every_picture_is_by_itself(vae, images):
    means, _ = encode_moments(vae, images)
    assert torch.equal(encode_moments(vae, images[[3]])[0], means[[3]])
    latents = random(3, 4, 2, 3)
    assert torch.equal(decode(vae, latents.flip(0)), decode(vae, latents).flip(0))


@pytest.mark.parametrize("rows", [1, 2])
def test_the_order_in_memory_does_not_matter(vae, images, rows):
    turned = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert turned.stride() != images.stride()
    latents = random(2, 4, 2, 3)
    turned_latents = latents.contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(
        (*encode_moments(vae, images, rows), decode(vae, latents, rows)),
        (*encode_moments(vae, turned, rows), decode(vae, turned_latents, rows)),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_it_works_in_the_number_format_of_its_weights(vae, images):
    exact, _ = encode_moments(vae, images[:1])
    half = copy.deepcopy(vae).bfloat16()
    coarse, log_variance = encode_moments(half, images[:1].bfloat16())
    assert coarse.dtype == log_variance.dtype == torch.bfloat16
    assert (coarse.float() - exact).norm() < 0.2 * exact.norm()
    assert decode(half, coarse).dtype == torch.bfloat16


def test_cancelling_stops_at_once(vae, images):
    told = []

    def stop(done, total):
        told.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_moments(vae, images, on_step=stop)
    assert told == [1, 2]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 32, 32), r"\(N, 3, height, width\)"),
        ((1, 4, 32, 32), r"\(N, 3, height, width\)"),
        ((0, 3, 32, 32), "N at least 1"),
        ((1, 3, 32, 36), "36 x 32 pixels, expected multiples of 8"),
    ],
)
def test_bad_images_are_refused(vae, shape, message):
    with pytest.raises(ValueError, match=message):
        encode_moments(vae, torch.zeros(shape))


def test_bad_latents_and_counts_are_refused(vae, images):
    with pytest.raises(ValueError, match=r"latents is \(1, 3, 4, 4\), expected \(N, 4"):
        decode(vae, torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="frames_at_once is 0"):
        encode_moments(vae, images, 0)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        VaeConfig(channels=(32, 48))
    with pytest.raises(ValueError, match=r"conv1\.weight is missing"):
        vae_keys.settings_from_official({"decoder.conv_in.weight": (64, 4, 3, 3)})
    with pytest.raises(ValueError, match="works over time"):
        vae_keys.settings_from_diffusers({"decoder.time_conv_out.weight": (3, 3, 3, 1, 1)})


def test_tiles_bound_what_a_layer_sees(vae):
    sides = []
    watched = [vae.encoder.conv_in, vae.decoder.conv_out]
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: sides.append(max(inputs[0].shape[2:])))
        for layer in watched
    ]
    image = random(1, 3, 96, 128).clamp(-1, 1)
    with tiling(vae, True, side=64):
        tiled, _ = encode_moments(vae, image)
        pictures = decode(vae, tiled)
    assert max(sides) == 64
    assert tiled.shape == (1, 4, 12, 16)
    assert pictures.shape == (1, 3, 96, 128)
    sides.clear()
    with tiling(vae, False, side=64):
        whole, _ = encode_moments(vae, image)
    assert sides == [128]
    for hook in hooks:
        hook.remove()
    assert not torch.equal(whole, tiled)


def test_small_pictures_are_not_tiled(vae, images):
    with tiling(vae, True, side=64):
        assert torch.equal(encode_moments(vae, images)[0], encode_moments(vae, images)[0])
        tiled = encode_moments(vae, images)[0]
    assert torch.equal(tiled, encode_moments(vae, images)[0])


def test_tiling_ends_with_its_block(vae):
    before = vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size
    with pytest.raises(KeyboardInterrupt), tiling(vae, True, side=64):
        assert vae.use_tiling
        raise KeyboardInterrupt
    assert (vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size) == before
    assert not vae.use_tiling
    with pytest.raises(ValueError, match="multiple of 32"), tiling(vae, True, side=40):
        pass
