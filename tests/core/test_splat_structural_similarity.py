"""SSIM: the kernels against torch's convolutions, scikit-image and finite differences."""

import numpy as np
import pytest
import skimage.metrics
import torch

from hi3d_core.splat.structural_similarity import mean_by_convolution, structural_similarity


def pictures(height, width, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(height, width, 3, generator=g, dtype=torch.float64)
    y = (x + 0.2 * torch.randn(x.shape, generator=g, dtype=torch.float64)).clamp(0, 1)
    return x.to(dtype), y.to(dtype)


@pytest.mark.parametrize("size", [(40, 31), (11, 60), (5, 7), (1, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_kernels_equal_convolutions(size, dtype, tolerance):
    x, y = pictures(*size, dtype=dtype)
    x.requires_grad_()
    ours, theirs = structural_similarity(x, y), mean_by_convolution(x, y)
    (d_ours,), (d_theirs,) = torch.autograd.grad(ours, x), torch.autograd.grad(theirs, x)
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)
    assert float((d_ours - d_theirs).abs().max()) < tolerance * float(d_theirs.abs().max())


def test_equals_scikit_image_inside():
    """Away from the border, where the two pad differently: take the interior's mean."""
    x, y = pictures(64, 64)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    reference = np.mean(
        [
            skimage.metrics.structural_similarity(
                x[..., c].numpy(), y[..., c].numpy(), data_range=1, full=True, **options
            )[1][5:-5, 5:-5]
            for c in range(3)
        ]
    )
    # Pictures that are equal outside the interior's reach: then only the interior differs.
    full = float(structural_similarity(x, y))
    assert full == pytest.approx(reference, abs=0.02)
    middle = torch.zeros_like(x)
    middle[27:37, 27:37] = y[27:37, 27:37] - x[27:37, 27:37]
    ours = 1 - float(structural_similarity(x, x + middle))
    theirs = np.mean(
        [
            1
            - skimage.metrics.structural_similarity(
                x[..., c].numpy(), (x + middle)[..., c].numpy(), data_range=1, **options, full=True
            )[1].mean()
            for c in range(3)
        ]
    )
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_equal_pictures_have_1_and_no_gradient():
    x, _ = pictures(20, 20)
    x.requires_grad_()
    value = structural_similarity(x, x.detach())
    value.backward()
    assert value.item() == pytest.approx(1)
    assert float(x.grad.abs().max()) < 1e-12


def test_the_gradient_scales_with_what_follows():
    x, y = pictures(12, 12)
    x.requires_grad_()
    (once,) = torch.autograd.grad(structural_similarity(x, y), x)
    (thrice,) = torch.autograd.grad(1 - 3 * structural_similarity(x, y), x)
    torch.testing.assert_close(thrice, -3 * once)
