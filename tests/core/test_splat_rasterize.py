"""The rasterizer against its plain torch twin and against finite differences."""

import importlib.util
import logging
from pathlib import Path

import numba
import pytest
import torch

from hi3d_core.cameras import Cameras
from hi3d_core.splat import rasterize as rasterize_module
from hi3d_core.splat.rasterize import rasterize
from hi3d_core.splat.spherical_harmonics import colors_from_sh

_spec = importlib.util.spec_from_file_location(
    "splat_twin", Path(__file__).parent / "splat_twin.py"
)
twin = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(twin)

NAMES = ("means", "scales", "quaternions", "opacities", "colors")


def scene(count, seed=0, *, spread=0.5, size=0.08, anisotropy=0.8, opacity=None):
    """Random Gaussians about the origin, of random shapes and directions, in float64."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    parts = [
        normal(count, 3) * spread,
        size * torch.exp(anisotropy * normal(count, 3)),
        normal(count, 4) * 1.7,  # of any length: the rasterizer normalises
        torch.rand(count, generator=g, dtype=torch.float64) * 0.9 + 0.05,
        torch.rand(count, 3, generator=g, dtype=torch.float64),
    ]
    if opacity is not None:
        parts[3] = torch.full_like(parts[3], opacity)
    return parts


def cameras_of(width, height, *, views=1, center=(0.0, 0.0), elevation=15.0, radius=1.5):
    """An orbit with exact (float64) intrinsics; `center` moves the principal point, in pixels."""
    orbit = Cameras.orbit(views, elevation, radius, width=width, height=height)
    intrinsics = orbit.intrinsics.double().clone()
    intrinsics[:, 0, 2] += center[0]
    intrinsics[:, 1, 2] += center[1]
    return Cameras(orbit.camera_to_world.double(), intrinsics, width, height)


def loss_weights(rendered, seed=5):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(r.shape, generator=g, dtype=torch.float64) for r in rendered]


def outputs(parts, cameras, background):
    rendered = rasterize(*parts, cameras, background)
    return rendered.colors, rendered.alphas, rendered.depths


def outputs_and_gradients(draw, parts, cameras, background):
    """What is drawn, and the gradients of a random linear function of it."""
    leaves = [p.clone().requires_grad_() for p in parts]
    results = draw(leaves, cameras, background)
    weights = loss_weights(results)
    sum((r * w.to(r)).sum() for r, w in zip(results, weights, strict=True)).backward()
    return [r.detach() for r in results], [leaf.grad for leaf in leaves]


def gradients(draw, parts, cameras, background):
    return outputs_and_gradients(draw, parts, cameras, background)[1]


def twin_outputs(parts, cameras, background):
    return twin.rasterize(*parts, cameras, background)


SCENES = {
    "one": (scene(1, 1, spread=0.05), cameras_of(24, 24)),
    "few": (scene(9, 2), cameras_of(40, 40)),
    "several tiles": (scene(60, 3, spread=0.35), cameras_of(66, 67)),
    "wide": (scene(40, 4), cameras_of(97, 33)),
    "tall, principal point off centre": (scene(40, 5), cameras_of(31, 70, center=(-9.5, 13.2))),
    "needles and plates": (scene(40, 6, anisotropy=2.5), cameras_of(40, 33)),
    "smaller than a pixel": (scene(60, 7, size=1e-4), cameras_of(33, 33)),
    "opaque, pixels end early": (
        scene(80, 8, spread=0.2, size=0.2, opacity=0.98),
        cameras_of(33, 33),
    ),
    "at the cap of alpha": (scene(10, 9, size=0.3, opacity=1.0), cameras_of(24, 24)),
    "three views, around and behind the cameras": (
        scene(50, 10, spread=1.2),
        cameras_of(34, 20, views=3),
    ),
    "straight above": (scene(30, 11), cameras_of(32, 32, elevation=90.0)),
}


@pytest.mark.parametrize("name", SCENES)
def test_pictures_and_gradients_equal_the_twin(name):
    parts, cameras = SCENES[name]
    background = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)
    theirs, their_gradients = outputs_and_gradients(twin_outputs, parts, cameras, background)
    ours, our_gradients = outputs_and_gradients(outputs, parts, cameras, background)
    assert float(theirs[1].max()) > 0.02, "the scene is empty: it tests nothing"
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    for label, a, b in zip(NAMES, our_gradients, their_gradients, strict=True):
        scale = float(b.abs().max()) + 1e-6
        assert float((a - b).abs().max()) < 1e-8 * scale, label


def test_no_background_is_black():
    parts, cameras = SCENES["few"]
    black = outputs(parts, cameras, torch.zeros(3, dtype=torch.float64))
    for a, b in zip(outputs(parts, cameras, None), black, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", SCENES)
def test_float32_is_close_to_float64(name):
    parts, cameras = SCENES[name]
    exact = outputs(parts, cameras, None)
    rounded = outputs([p.float() for p in parts], cameras, None)
    for ours, truth in zip(rounded[:2], exact[:2], strict=True):
        assert ours.dtype == torch.float32
        difference = (ours - truth).abs()
        # A pixel on the 1/255 edge, or one that just ends, may fall on the other side.
        assert float(difference.quantile(0.99)) < 2e-5
        assert float(difference.max()) < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_gradients_equal_finite_differences(seed):
    """Central differences along random directions of every parameter, in float64."""
    parts = scene(25, 20 + seed, spread=0.4)
    cameras = cameras_of(37, 29, views=2, center=(3.3, -2.1))
    weights = loss_weights(outputs(parts, cameras, None))
    analytic = gradients(outputs, parts, cameras, None)

    def loss(changed):
        results = outputs(changed, cameras, None)
        return float(sum((r * w).sum() for r, w in zip(results, weights, strict=True)))

    g = torch.Generator().manual_seed(seed)
    step = 1e-6
    for k, label in enumerate(NAMES):
        direction = torch.randn(parts[k].shape, generator=g, dtype=torch.float64)
        direction *= parts[k].abs() if label == "scales" else 1
        moved = [
            loss([*parts[:k], parts[k] + sign * step * direction, *parts[k + 1 :]])
            for sign in (1, -1)
        ]
        numeric = (moved[0] - moved[1]) / (2 * step)
        expected = float((analytic[k] * direction).sum())
        assert numeric == pytest.approx(expected, rel=1e-5), label


@pytest.mark.parametrize("degree", range(4))
def test_colours_of_spherical_harmonics_with_gradients(degree):
    """Per-view colours, and the direction's gradient into the means."""
    parts, cameras = scene(20, 31), cameras_of(33, 20, views=2)
    g = torch.Generator().manual_seed(degree)
    parts[4] = torch.randn(20, (degree + 1) ** 2, 3, generator=g, dtype=torch.float64) * 0.5

    def with_sh(draw):
        def drawn(leaves, cameras, background):
            directions = leaves[0] - cameras.positions[:, None]
            return draw([*leaves[:4], colors_from_sh(leaves[4], directions)], cameras, background)

        return drawn

    for ours, theirs in zip(
        with_sh(outputs)(parts, cameras, None), with_sh(twin_outputs)(parts, cameras, None),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    ours = gradients(with_sh(outputs), parts, cameras, None)
    theirs = gradients(with_sh(twin_outputs), parts, cameras, None)
    for label, a, b in zip(NAMES, ours, theirs, strict=True):
        assert float((a - b).abs().max()) < 1e-8 * float(b.abs().max()), label


def test_nothing_to_draw_shows_the_background():
    cameras = cameras_of(7, 5, views=2)
    background = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64)
    nothing = [p[:0] for p in scene(1)]
    behind = scene(3, spread=0.01)
    behind[0] = behind[0] + 3 * cameras.positions[0]
    faint = scene(3, opacity=1 / 256)
    broken = scene(1)
    broken[0] = broken[0] * torch.nan
    for parts in (nothing, faint, broken):
        colors, alphas, depths = outputs(parts, cameras, background)
        assert torch.equal(colors, background.expand(2, 5, 7, 3))
        assert not alphas.any()
        assert not depths.any()
    assert not outputs(behind, cameras[[0]], None)[1].any()


def test_no_gaussians_still_have_gradients():
    leaves = [p[:0].requires_grad_() for p in scene(1)]
    drawn = rasterize(*leaves, cameras_of(4, 4))
    assert drawn.colors.shape == (1, 4, 4, 3)


def test_the_number_of_threads_changes_nothing():
    parts, cameras = [p.float() for p in scene(200, 40)], cameras_of(100, 80)
    before = numba.get_num_threads()
    results = []
    try:
        for threads in {1, before}:
            numba.set_num_threads(threads)
            results.append(
                [*outputs(parts, cameras, None), *gradients(outputs, parts, cameras, None)]
            )
    finally:
        numba.set_num_threads(before)
    for a, b in zip(results[0], results[-1], strict=True):
        assert torch.equal(a, b)


def test_inputs_are_left_as_they_were():
    parts, cameras = scene(10), cameras_of(20, 20)
    before = [p.clone() for p in parts]
    gradients(outputs, parts, cameras, None)
    assert all(torch.equal(a, b) for a, b in zip(parts, before, strict=True))


def test_views_may_be_transposed_or_strided():
    parts, cameras = scene(10), cameras_of(20, 20)
    strided = [torch.stack([p, p], dim=-1)[..., 0] for p in parts]
    assert not strided[0].is_contiguous()
    for a, b in zip(outputs(strided, cameras, None), outputs(parts, cameras, None), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (1, lambda t: t[:3], "scales is"),
        (2, lambda t: t[:, :3], "quaternions is"),
        (3, lambda t: t[:, None], "opacities is"),
        (4, lambda t: t.expand(3, -1, -1), "colors is"),
        (1, lambda t: t.float(), "scales is torch.float32"),
    ],
)
def test_wrong_shapes_and_types_are_refused(index, change, message):
    parts = scene(5)
    parts[index] = change(parts[index])
    with pytest.raises(ValueError, match=message):
        rasterize(*parts, cameras_of(8, 8))


def test_half_precision_is_refused():
    with pytest.raises(ValueError, match="float16"):
        rasterize(*[p.half() for p in scene(5)], cameras_of(8, 8))


def test_a_device_without_kernels_is_said_once(caplog, monkeypatch):
    monkeypatch.setattr(rasterize_module, "_warned", set())
    assert not rasterize_module.has_cuda_kernels(torch.device("cpu"))
    with caplog.at_level(logging.WARNING):
        rasterize_module._warn_slow(torch.device("cuda"))
        rasterize_module._warn_slow(torch.device("cuda"))
    assert len(caplog.records) == 1
    assert "pip install gsplat" in caplog.text
