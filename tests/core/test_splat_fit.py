"""Fitting a splat: to an analytic ball, judged from cameras it did not see."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch

from hi3d_core.cameras import Cameras
from hi3d_core.splat import fit as fit_module
from hi3d_core.splat.fit import SplatConfig, fit_gaussians
from hi3d_core.splat.initialize import initial_gaussians
from hi3d_core.splat.interpolate import in_between_cameras, render_views

_spec = importlib.util.spec_from_file_location(
    "splat_initialize_scene", Path(__file__).parent / "test_splat_initialize.py"
)
scene = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scene)

QUICK = SplatConfig(count=600, size=48, iterations=120, coarse_share=0.3)


def psnr(images, truth):
    return float(-10 * ((images - truth) ** 2).mean().log10())


@pytest.fixture(scope="module")
def fitted():
    views = scene.ball_views(8, 48)
    return views, fit_gaussians(views, scene.ball_points(600), QUICK)


def test_views_in_between_are_predicted(fitted):
    views, gaussians = fitted
    truth = scene.ball_views(16, 48)[slice(1, None, 2)]
    rendered = render_views(gaussians, in_between_cameras(views.cameras, 8))
    start = initial_gaussians(scene.ball_points(600), views)
    before = psnr(render_views(start, truth.cameras).images, truth.images)
    after = psnr(rendered.images, truth.images)
    assert after > 27
    assert after > before + 3
    error = (rendered.alphas - truth.alphas).abs()
    assert float(error.mean()) < 0.02
    # The front of the ball, at 1.05, is what is seen, but for what shows through.
    assert 1.03 < float(rendered.depths[:, 24, 24].mean()) < 1.15


def test_a_seed_gives_the_same_splat(fitted):
    views, first = fitted
    config = dataclasses.replace(QUICK, iterations=20)
    a, b, c = (
        fit_gaussians(views, scene.ball_points(600), config, seed=seed) for seed in (3, 3, 4)
    )
    for name in ("means", "scales", "quaternions", "opacities", "sh"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert not torch.equal(a.means, c.means)
    assert len(first) == 600


def test_inputs_and_thread_count_are_left_as_they_were():
    views, points = scene.ball_views(4, 32), scene.ball_points(200)
    before = [views.images.clone(), views.alphas.clone(), points.clone()]
    threads = torch.get_num_threads()
    fit_gaussians(views, points, dataclasses.replace(QUICK, iterations=5))
    for old, new in zip(before, [views.images, views.alphas, points], strict=True):
        assert torch.equal(old, new)
    assert torch.get_num_threads() == threads


def test_steps_are_reported_and_may_cancel():
    views, points, steps = scene.ball_views(4, 32), scene.ball_points(200), []
    config = dataclasses.replace(QUICK, iterations=6)
    fit_gaussians(views, points, config, on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(i, 6) for i in range(1, 7)]

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_gaussians(views, points, config, on_step=cancel)


@pytest.mark.parametrize(
    ("broken", "term"), [("structural_similarity", "ssim"), ("rasterize", "colour")]
)
def test_a_loss_that_is_not_finite_names_its_term(monkeypatch, broken, term):
    def bad_similarity(image, target):
        return image.sum() * torch.nan

    def bad_colors(*arguments):
        drawn = fit_module_rasterize(*arguments)
        return dataclasses.replace(drawn, colors=drawn.colors * torch.inf)

    fit_module_rasterize = fit_module.rasterize
    monkeypatch.setattr(
        fit_module, broken, bad_similarity if broken == "structural_similarity" else bad_colors
    )
    with pytest.raises(FloatingPointError, match=f"its {term} loss is (nan|inf) at step 0"):
        fit_gaussians(scene.ball_views(4, 32), scene.ball_points(200), QUICK)


def test_a_picture_that_is_cut_sees_the_same_rays():
    """Cutting a view to the object must be a pure shift of its pixels."""
    views = scene.ball_views(4, 64)
    gaussians = initial_gaussians(scene.ball_points(600), views)
    pictures = fit_module._pictures(views, 64)
    whole = render_views(gaussians, views.cameras)
    for view, picture in enumerate(pictures):
        assert picture.camera.width < 64
        cut = render_views(gaussians, picture.camera)
        left = round(
            float(views.cameras.intrinsics[view, 0, 2] - picture.camera.intrinsics[0, 0, 2])
        )
        top = round(
            float(views.cameras.intrinsics[view, 1, 2] - picture.camera.intrinsics[0, 1, 2])
        )
        window = (slice(top, top + picture.camera.height), slice(left, left + picture.camera.width))
        torch.testing.assert_close(cut.alphas[0], whole.alphas[view][window], atol=1e-4, rtol=0)
        assert torch.equal(picture.alpha, views.alphas[view][window])
        # Nothing of the object is cut away.
        assert float(picture.alpha.sum()) == float(views.alphas[view].sum())


def test_views_of_odd_size_are_reduced_exactly():
    views = scene.ball_views(4, 50)
    wide = Cameras(views.cameras.camera_to_world, views.cameras.intrinsics, 50, 31)
    cut = dataclasses.replace(
        views, images=views.images[:, 10:41], alphas=views.alphas[:, 10:41], cameras=wide
    )
    for picture in fit_module._pictures(cut, 25):
        assert picture.image.shape[:2] == picture.alpha.shape
        assert (picture.camera.height, picture.camera.width) == picture.alpha.shape


def test_dead_gaussians_are_moved():
    views, points = scene.ball_views(4, 32), scene.ball_points(300)
    start = initial_gaussians(points, views)
    faded = start.opacities.clone()
    faded[:100] = 0.001
    fit = fit_module._Fit(dataclasses.replace(start, opacities=faded), QUICK, seed=0)
    fit.step(fit_module._pictures(views, 32)[0], 0)
    before = render_views(fit.result(), views.cameras)
    fit._relocate()
    moved = fit.result()
    assert float(moved.opacities.min()) > 0.05
    # Each stands where a living one was.
    distance = torch.cdist(moved.means[:100], moved.means[100:]).amin(dim=1)
    assert float(distance.max()) < 1e-3  # cdist loses digits
    after = render_views(moved, views.cameras)
    assert float((after.images - before.images).abs().mean()) < 0.01
