"""Previews: an affine map from latents to colours."""

import pytest
import torch
from torch.nn import functional

from hi3d_core.diffusion.preview import LatentPreview


def picture(seed=0, count=1, size=64):
    """Smooth random colours in [-1, 1], (N, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1
    return functional.interpolate(coarse, (size, size), mode="bicubic").clamp(-1, 1)


def encode(images):
    """A stand-in autoencoder: a bent, mixed code of each cell's colour and its contrast."""
    mixing = torch.tensor([[6.0, -2.0, 1.0], [1.0, 5.0, -3.0], [-2.0, 1.0, 4.0], [3.0, 3.0, 3.0]])
    cells = functional.avg_pool2d(images, 8)
    contrast = functional.avg_pool2d(images**2, 8) - cells**2
    codes = torch.einsum("ab,nbhw->nahw", mixing, cells + 0.1 * cells**3)
    return codes + 4 + contrast.mean(1, keepdim=True)


def cells(images):
    return (functional.avg_pool2d(images, 8) * 0.5 + 0.5).movedim(1, -1)


def test_a_map_from_one_picture_shows_others():
    preview = LatentPreview.fit(picture(0), encode(picture(0)))
    shown = preview(encode(picture(1, count=5)))
    assert shown.shape == (5, 8, 8, 3)
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert (shown - cells(picture(1, count=5))).abs().mean() < 0.03


def test_a_linear_code_is_undone_but_for_the_ridge():
    images = picture(2, count=2)
    codes = torch.cat([functional.avg_pool2d(images, 8), torch.zeros(2, 1, 8, 8)], dim=1)
    shown = LatentPreview.fit(images, codes)(codes)
    assert (shown - cells(images)).abs().max() < 0.01


def test_colours_are_cut_to_their_range():
    preview = LatentPreview.fit(picture(), encode(picture()))
    shown = preview(encode(picture()) * 5 - 10)
    assert (shown.min(), shown.max()) == (0, 1)


@pytest.mark.parametrize("code", [0.0, 7.0])
def test_a_flat_white_picture_gives_white(code):
    white = torch.ones(1, 3, 64, 64)
    preview = LatentPreview.fit(white, torch.full((1, 4, 8, 8), code))
    assert torch.equal(preview(torch.randn(3, 4, 8, 8)), torch.ones(3, 8, 8, 3))


def test_a_nearly_flat_picture_stays_sane():
    generator = torch.Generator().manual_seed(0)
    white = 1 - 0.01 * torch.rand(1, 3, 64, 64, generator=generator)
    codes = 7 + 1e-4 * torch.randn(1, 4, 8, 8, generator=generator)
    # Latents of a real object, whose spread is 50,000 times as large.
    shown = LatentPreview.fit(white, codes)(7 + 5 * torch.randn(16, 4, 8, 8, generator=generator))
    assert shown.min() > 0.9


def test_half_precision_latents_are_shown_in_float32():
    preview = LatentPreview.fit(picture(), encode(picture()))
    codes = encode(picture(1))
    shown = preview(codes.half())
    assert shown.dtype == torch.float32
    assert torch.allclose(shown, preview(codes), atol=0.01)


@pytest.mark.parametrize(
    ("images", "latents", "message"),
    [
        ((3, 64, 64), (1, 4, 8, 8), r"expected \(N, 3, H, W\)"),
        ((1, 3, 64, 64), (1, 8, 8, 8), r"\(N, 4, h, w\)"),
        ((2, 3, 64, 64), (1, 4, 8, 8), "as many latents as pictures"),
        ((1, 3, 60, 64), (1, 4, 8, 8), "a grid that divides the picture"),
        ((0, 3, 64, 64), (0, 4, 8, 8), "as many latents as pictures"),
    ],
)
def test_shapes_must_fit(images, latents, message):
    with pytest.raises(ValueError, match=message):
        LatentPreview.fit(torch.zeros(images), torch.zeros(latents))


def test_an_overflown_code_is_named():
    codes = encode(picture())
    codes[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        LatentPreview.fit(picture(), codes)
