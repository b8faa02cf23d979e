"""Gains between views and a fit, put there by hand."""

import numpy as np

from hi3d_core.align.tones import solve_tones


def _views() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.uniform(0.2, 0.7, size=(4, 24, 24, 3)).astype(np.float32)
    alphas = np.zeros((4, 24, 24), np.float32)
    alphas[:, 4:20, 4:20] = 1
    return np.where(alphas[..., None] > 0, images, 1).astype(np.float32), alphas


_PUT = np.array([[1, 1, 1], [0.9, 1, 1.1], [1.2, 1.1, 0.95], [0.85, 0.9, 1]], np.float32)


def test_gains_undo_what_was_put_on_the_views():
    fit, alphas = _views()
    views = np.where(alphas[..., None] > 0, fit * _PUT[:, None, None], 1)
    gains = solve_tones(views, alphas, fit, alphas)
    assert np.abs(gains * _PUT - 1).max() < 1e-4


def test_the_reference_keeps_its_colours_even_if_the_fit_is_darker():
    fit, alphas = _views()
    darker = np.where(alphas[..., None] > 0, fit * 0.9, 1)
    put = np.roll(_PUT, 2, axis=0)
    views = np.where(alphas[..., None] > 0, fit * put[:, None, None], 1)
    gains = solve_tones(views, alphas, darker, alphas, reference=2)
    assert np.array_equal(gains[2], [1, 1, 1])
    assert np.abs(gains * put - 1).max() < 1e-4


def test_without_a_reference_the_mean_stays():
    fit, alphas = _views()
    views = np.where(alphas[..., None] > 0, fit * _PUT[:, None, None], 1)
    gains = solve_tones(views, alphas, fit, alphas, reference=None)
    assert np.abs(np.log(gains).mean(axis=0)).max() < 1e-5
    relative = gains * _PUT
    assert np.abs(relative / relative[:1] - 1).max() < 1e-4


def test_a_third_of_wrong_pixels_does_not_matter():
    fit, alphas = _views()
    views = np.where(alphas[..., None] > 0, fit * _PUT[:, None, None], 1)
    views[:, 4:9] = 0.9
    gains = solve_tones(views, alphas, fit, alphas)
    # The median of what is left is the same ratio.
    assert np.abs(gains * _PUT - 1).max() < 0.01


def test_a_view_that_shows_nothing_is_given_the_mean_and_none_gives_ones():
    fit, alphas = _views()
    views = np.where(alphas[..., None] > 0, fit * np.float32(0.9), 1)
    views[0] = fit[0]
    empty = alphas.copy()
    empty[3] = 0
    gains = solve_tones(views, empty, fit, alphas)
    assert np.abs(gains[1:3] - 1 / 0.9).max() < 1e-3
    assert 1 < gains[3].min() < 1 / 0.9
    assert np.array_equal(solve_tones(views, 0 * alphas, fit, alphas), np.ones((4, 3)))
