"""gsplat's CUDA kernels against our own on the CPU: the same pictures, the same gradients."""

import importlib.util
from pathlib import Path

import pytest
import torch

from hi3d_core import optional
from hi3d_core.splat.fit import SplatConfig, fit_gaussians
from hi3d_core.splat.interpolate import in_between_cameras, render_views
from hi3d_core.splat.rasterize import has_cuda_kernels, rasterize
from hi3d_core.splat.structural_similarity import structural_similarity

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
needs_gsplat = pytest.mark.skipif(
    not optional.is_available("gsplat"), reason="needs gsplat: pip install gsplat"
)


def _beside(name):
    spec = importlib.util.spec_from_file_location(
        f"gpu_{name}", Path(__file__).parent / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes = _beside("test_splat_rasterize")
ball = _beside("test_splat_initialize")


def draw(leaves, cameras, background):
    drawn = rasterize(*leaves, cameras, background)
    return drawn.colors, drawn.alphas, drawn.depths


@needs_gsplat
@pytest.mark.parametrize("name", scenes.SCENES)
@pytest.mark.parametrize("background", [None, (1.0, 0.5, 0.2)])
def test_pictures_equal_the_cpu(name, background):
    parts, cameras = scenes.SCENES[name]
    background = None if background is None else torch.tensor(background)
    cpu = draw([p.float() for p in parts], cameras, background)
    gpu = draw([p.float().cuda() for p in parts], cameras.to("cuda"), background)
    assert has_cuda_kernels(torch.device("cuda"))
    for ours, theirs in zip(cpu[:2], gpu[:2], strict=True):
        difference = (ours - theirs.cpu()).abs()
        assert float(difference.quantile(0.99)) < 1e-4
        # A pixel on the 1/255 edge, or one that just ends, may fall on the other side.
        assert float(difference.max()) < 0.02
    solid = cpu[1] > 0.1
    difference = (cpu[2] - gpu[2].cpu()).abs()[solid]
    assert float(difference.quantile(0.99)) < 1e-3


@needs_gsplat
@pytest.mark.parametrize("name", scenes.SCENES)
def test_gradients_equal_the_cpu(name):
    parts, cameras = scenes.SCENES[name]
    weights = [w.float() for w in scenes.loss_weights(draw(parts, cameras, None))]
    # Depths of pixels that are hardly covered are a quotient of two small numbers.
    weights[2] = weights[2] * 0.1
    results = []
    for device in ("cpu", "cuda"):
        leaves = [p.float().to(device).requires_grad_() for p in parts]
        drawn = draw(leaves, cameras.to(device), None)
        solid = drawn[1].detach() > 0.1
        drawn = (drawn[0], drawn[1], torch.where(solid, drawn[2], 0.0))
        sum((r * w.to(device)).sum() for r, w in zip(drawn, weights, strict=True)).backward()
        results.append([leaf.grad.cpu() for leaf in leaves])
    for label, ours, theirs in zip(scenes.NAMES, *results, strict=True):
        error = float((ours - theirs).norm()) / (float(ours.norm()) + 1e-6)
        assert error < 0.02, label


@needs_gsplat
def test_a_fit_on_the_gpu_predicts_views_in_between():
    views = ball.ball_views(8, 48).to("cuda")
    gaussians = fit_gaussians(
        views,
        ball.ball_points(600).cuda(),
        SplatConfig(count=600, size=48, iterations=120, coarse_share=0.3),
    )
    assert gaussians.means.device.type == "cuda"
    truth = ball.ball_views(16, 48)[slice(1, None, 2)]
    rendered = render_views(gaussians, in_between_cameras(views.cameras, 8))
    assert rendered.images.device.type == "cuda"
    mse = ((rendered.images.cpu() - truth.images) ** 2).mean()
    assert float(-10 * mse.log10()) > 27


def test_similarity_equals_the_cpu():
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 40, 50, 3, generator=g)
    results = []
    for device in ("cpu", "cuda"):
        leaf = x.to(device).requires_grad_()
        value = structural_similarity(leaf, y.to(device))
        value.backward()
        results.append((value.item(), leaf.grad.cpu()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-4)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-6, rtol=1e-2)


def test_without_gsplat_the_cpu_draws(monkeypatch):
    monkeypatch.setattr(optional, "is_available", lambda module: False)
    parts, cameras = scenes.SCENES["few"]
    leaves = [p.float().cuda().requires_grad_() for p in parts]
    drawn = rasterize(*leaves, cameras.to("cuda"))
    assert drawn.colors.device.type == "cuda"
    expected = draw([p.float() for p in parts], cameras, None)
    torch.testing.assert_close(drawn.colors.cpu(), expected[0])
    drawn.colors.sum().backward()
    assert all(leaf.grad.device.type == "cuda" for leaf in leaves)
