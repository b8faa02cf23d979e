import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import OrbitViews
from hi3d_core.local_views import in_local_frame
from hi3d_core.surface.extract import extract_mesh
from hi3d_core.surface.fit import Level, SurfaceConfig, fit_surface
from hi3d_core.surface.hull import locate
from hi3d_core.surface.outlines import crisp_outlines, outline_widths

from .synthetic import sphere_views

COLOR = np.array([0.2, 0.5, 0.7], "f4")


def _ramp(width: float, size: int = 64) -> np.ndarray:
    """(1, size, size) alphas that rise over `width` pixels around the middle."""
    columns = np.arange(size, dtype="f4") + 0.5 - size / 2
    return np.tile(np.clip(columns / width + 0.5, 0, 1), (1, size, 1)).astype("f4")


def _over_white(alphas: np.ndarray) -> np.ndarray:
    return (1 - alphas[..., None] * (1 - COLOR)).astype("f4")


@pytest.mark.parametrize("width", [4, 6, 10])
def test_a_ramp_is_as_wide_as_it_is(width):
    # Sampled at pixel centres a ramp of even width holds 1 / (12 w) more than the integral.
    assert outline_widths(_ramp(width)) == pytest.approx(width + 1 / (2 * width), rel=1e-3)


def test_renders_have_narrow_outlines_and_pictures_without_any_are_narrow():
    views = sphere_views(Cameras.orbit(4, 10, width=128, height=128))
    assert (outline_widths(views.alphas.numpy()) < 1).all()
    plain = np.stack([np.zeros((8, 8), "f4"), np.ones((8, 8), "f4")])
    assert outline_widths(plain).tolist() == [1, 1]


def test_soft_outlines_become_two_pixels_wide_where_they_are():
    alphas = _ramp(6)
    images, steep = crisp_outlines(_over_white(alphas), alphas)
    assert outline_widths(steep) == pytest.approx(2, abs=0.3)
    assert np.array_equal(steep > 0.5, alphas > 0.5)
    assert np.allclose(images, _over_white(steep), atol=1e-5)


def test_only_views_with_soft_outlines_are_changed():
    both = np.concatenate([_ramp(1.5), _ramp(8)])
    images, alphas = crisp_outlines(_over_white(both), both)
    assert np.array_equal(alphas[0], both[0]) and np.array_equal(images[0], _over_white(both)[0])
    assert not np.array_equal(alphas[1], both[1])
    given = _over_white(_ramp(1.5)), _ramp(1.5)
    kept = crisp_outlines(*given)
    assert kept[0] is given[0] and kept[1] is given[1]


def test_an_inside_that_is_not_quite_opaque_is_no_outline():
    matte = 0.97 * _ramp(1.5)
    images, alphas = crisp_outlines(_over_white(matte), matte)
    assert alphas is matte
    assert np.array_equal(images, _over_white(matte))


def test_a_ball_whose_outline_is_blurred_comes_back_without_spikes():
    views = sphere_views(Cameras.orbit(12, 10, width=128, height=128))
    alphas = gaussian_filter(views.alphas.numpy(), (0, 2.5, 2.5))
    white = 1 - views.images.numpy()
    images = 1 - gaussian_filter(white, (0, 2.5, 2.5, 0))
    blurred = OrbitViews(torch.from_numpy(images), torch.from_numpy(alphas), views.cameras)
    placement = locate(blurred)
    local = in_local_frame(blurred, placement)
    config = SurfaceConfig(
        levels=(Level(32, 64, 40), Level(64, 128, 60)), rays=16384, cavity_rounds=0
    )
    field = fit_surface(local, placement, config)
    mesh = extract_mesh(field).from_frame(placement.center, placement.scale)
    zone = mesh.vertices[mesh.vertices[:, 1].abs() < 0.3].norm(dim=1)
    voxel = field.grid.voxel * placement.scale
    # Fitted to outlines as soft as these it has spikes of three voxels.
    assert zone.std() < 0.3 * voxel
    assert (zone - zone.median()).abs().max() < 1.2 * voxel
