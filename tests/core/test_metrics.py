"""Picture metrics against their formulas."""

import numpy as np
import pytest
import torch

from hi3d_core.metrics import mask_iou, psnr, ssim


def picture(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_a_constant_error_is_its_definition():
    first = torch.full((8, 9, 3), 0.5)
    for error in (0.1, 0.01, 0.001):
        assert psnr(first + error, first) == pytest.approx(-20 * np.log10(error), abs=1e-3)


def test_psnr_is_over_the_mean_of_all_values_and_symmetric():
    first, second = picture(1, 16, 12, 3), picture(2, 16, 12, 3)
    expected = 10 * np.log10(1 / np.mean((first.numpy() - second.numpy()) ** 2))
    assert psnr(first, second) == pytest.approx(expected, abs=1e-4)
    assert psnr(first, second) == psnr(second, first)


def test_psnr_of_equal_pictures_is_finite():
    assert psnr(picture(1, 8, 8, 3), picture(1, 8, 8, 3)) == 100


def naive_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Window by window: Wang et al. 2004, eq. 13, in 7 x 7 windows with sample covariances."""
    values = []
    for channel in range(3):
        x, y = first[..., channel].astype(float), second[..., channel].astype(float)
        for top in range(x.shape[0] - 6):
            for left in range(x.shape[1] - 6):
                a = x[top : top + 7, left : left + 7].ravel()
                b = y[top : top + 7, left : left + 7].ravel()
                (va, cov), (_, vb) = np.cov(a, b)
                luminance = (2 * a.mean() * b.mean() + 1e-4) / (
                    a.mean() ** 2 + b.mean() ** 2 + 1e-4
                )
                values.append(luminance * (2 * cov + 9e-4) / (va + vb + 9e-4))
    return float(np.mean(values))


def test_ssim_equals_the_sum_over_windows():
    first = picture(1, 20, 17, 3)
    second = (first + 0.3 * (picture(2, 20, 17, 3) - 0.5)).clamp(0, 1)
    assert ssim(first, second) == pytest.approx(naive_ssim(first.numpy(), second.numpy()), abs=1e-5)
    assert ssim(first, first) == pytest.approx(1)


def test_mask_iou_counts_pixels():
    first, second = torch.zeros(10, 10), torch.zeros(10, 10)
    first[:4], second[2:6] = 1, 0.9
    assert mask_iou(first, second) == pytest.approx(2 / 6)
    assert mask_iou(first, torch.zeros(10, 10)) == 0
    assert mask_iou(torch.zeros(10, 10), torch.zeros(10, 10)) == 1


@pytest.mark.parametrize("metric", [psnr, ssim, mask_iou])
def test_pictures_that_do_not_fit_are_refused(metric):
    with pytest.raises(ValueError, match="one size"):
        metric(torch.zeros(8, 8, 3), torch.zeros(8, 9, 3))
    with pytest.raises(ValueError, match="empty"):
        metric(torch.zeros(0, 8, 3), torch.zeros(0, 8, 3))
    with pytest.raises(ValueError, match="NaN"):
        metric(torch.full((8, 8, 3), torch.nan), torch.zeros(8, 8, 3))


def test_ssim_refuses_pictures_smaller_than_its_window():
    with pytest.raises(ValueError, match="7 pixels"):
        ssim(torch.zeros(6, 8, 3), torch.zeros(6, 8, 3))
