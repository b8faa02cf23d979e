"""The spherical-harmonics basis against scipy's and against its own definition."""

import numpy as np
import pytest
import scipy.special
import torch

from hi3d_core.splat.spherical_harmonics import basis, colors_from_sh, sh_from_colors


def directions(count=400, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=g, dtype=torch.float64)


def complex_harmonic(order, degree, azimuth, polar):
    if hasattr(scipy.special, "sph_harm_y"):
        return scipy.special.sph_harm_y(degree, order, polar, azimuth)
    return scipy.special.sph_harm(order, degree, azimuth, polar)


def test_equals_scipy():
    """Real harmonics with the Condon-Shortley phase, order -l to l within degree l."""
    d = torch.nn.functional.normalize(directions(), dim=1)
    azimuth = np.arctan2(d[:, 1].numpy(), d[:, 0].numpy())
    polar = np.arccos(d[:, 2].numpy())
    ours = basis(d, 16).numpy()
    for degree in range(4):
        for order in range(-degree, degree + 1):
            value = complex_harmonic(abs(order), degree, azimuth, polar)
            part = value.imag if order < 0 else value.real
            expected = part * (np.sqrt(2) if order else 1)
            np.testing.assert_allclose(
                ours[:, degree * degree + degree + order], expected, atol=1e-12
            )


def test_fewer_terms_are_the_first_and_length_does_not_matter():
    d = directions()
    for terms in (1, 4, 9):
        torch.testing.assert_close(basis(3.7 * d, terms), basis(d, 16)[:, :terms])


def test_colours_round_trip_from_everywhere():
    colors = torch.rand(400, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(colors_from_sh(sh_from_colors(colors), directions()), colors)


def test_colours_are_never_negative():
    sh = torch.full((1, 1, 3), -5.0)
    assert torch.equal(colors_from_sh(sh, torch.ones(1, 3)), torch.zeros(1, 3))


@pytest.mark.parametrize("terms", [0, 2, 25])
def test_other_counts_are_refused(terms):
    with pytest.raises(ValueError, match="expected 1, 4, 9 or 16"):
        basis(directions(), terms)
