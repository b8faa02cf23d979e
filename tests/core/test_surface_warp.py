"""Warp's kernels against numba's: the same numbers from the same rays and fields.

Warp compiles the kernels that run on CUDA for the CPU too, so most of this needs no GPU; what is
left to say on one has the gpu marker.
"""

import gc
import re
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from hi3d_core import optional, pipeline
from hi3d_core.cameras import Cameras
from hi3d_core.surface import backend, fit
from hi3d_core.surface.backend import NumbaBackend, begin_fit, can_fit_on
from hi3d_core.surface.extract import extract_mesh
from hi3d_core.surface.field import Field, close_border, find_band, redistance, unseen_below
from hi3d_core.surface.fit import Level, SurfaceConfig, fit_surface
from hi3d_core.surface.hull import Grid, locate
from hi3d_core.surface.rays import Rays
from hi3d_core.surface.render import COLUMNS, RED, SDF, accumulate_gradients

from .synthetic import node_radii, sphere_views

needs_warp = pytest.mark.skipif(
    not optional.is_available("warp"), reason="needs Warp: pip install warp-lang"
)
needs_cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda:0", marks=needs_cuda)]

NODES = 32
CONFIG = SurfaceConfig()


def _field(seed: int = 0) -> Field:
    """A bumpy ball of nine voxels in random colours."""
    rng = np.random.default_rng(seed)
    grid = Grid.covering(np.full(3, -0.6), np.full(3, 0.6), NODES)
    bumps = 0.01 * rng.normal(size=grid.shape)
    field = Field.from_distance(grid, (node_radii(grid) - 0.36 + bumps).astype("f4"))
    field.colors[:] = rng.uniform(size=field.colors.shape)
    return field


def _rays(starts: np.ndarray, directions: np.ndarray, seed: int = 0) -> Rays:
    """Rays (R,) from anywhere to anywhere: each is the axis of a camera of its own."""
    rng = np.random.default_rng(seed)
    count = len(starts)
    turned = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    turned[:, :, 2] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    middle = np.full(count, 0.5, "f4")
    return Rays(
        starts.astype("f4"),
        turned.astype("f4"),
        np.tile(np.float32([100, 100, 0.5, 0.5]), (count, 1)),
        np.arange(count, dtype=np.int32),
        middle,
        middle,
        rng.uniform(size=(count, 3)).astype("f4"),
        rng.uniform(size=count).astype("f4"),
        rng.uniform(size=count).astype("f4"),
    )


def _from_all_around(count: int, seed: int, spread: float = 13.0) -> Rays:
    """Rays past or through the ball, that far from its centre at most along each axis."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    aims = rng.uniform(-spread, spread, size=(count, 3)) + (NODES - 1) / 2
    return _rays(aims - 150 * directions, directions, seed)


def _from_inside() -> Rays:
    """Rays that start within the grid, inside the ball and close to it."""
    rng = np.random.default_rng(1)
    starts = rng.uniform(-10, 10, size=(200, 3)) + (NODES - 1) / 2
    return _rays(starts, rng.normal(size=(200, 3)))


def _along_axes() -> Rays:
    """Each component of the direction is exactly 0 or 1; some run outside the grid."""
    starts = np.random.default_rng(2).uniform(-5, NODES + 5, size=(300, 3))
    axis = np.arange(300) % 3
    starts[np.arange(300), axis] = -40
    return _rays(starts, np.eye(3)[axis])


def _grazing() -> Rays:
    """Rays that touch the ball's rim."""
    rng = np.random.default_rng(3)
    directions = rng.normal(size=(300, 3))
    across = np.cross(directions, rng.normal(size=(300, 3)))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    radius = 0.36 / (1.2 / (NODES - 1))
    touched = (NODES - 1) / 2 + across * radius * rng.uniform(0.97, 1.03, size=(300, 1))
    return _rays(touched - 40 * directions, directions)


def _untrusted() -> Rays:
    rays = _from_all_around(300, 4)
    return replace(rays, trust=np.zeros_like(rays.trust))


def _certain() -> Rays:
    """Pixels that are all or nothing, where the entropy's clamp is at work."""
    rays = _from_all_around(300, 5)
    return replace(rays, alphas=np.round(rays.alphas))


def _missing() -> Rays:
    rays = _from_all_around(50, 6)
    return replace(rays, origins=rays.origins + np.float32(1e3))


RAYS = {
    "all around": lambda: _from_all_around(2000, 0),
    "from inside": _from_inside,
    "along axes": _along_axes,
    "grazing": _grazing,
    "untrusted": _untrusted,
    "certain": _certain,
    "missing": _missing,
}


def _both(field: Field, rays: Rays, device: str, config: SurfaceConfig = CONFIG):
    from hi3d_core.surface.warp_backend import WarpBackend

    return NumbaBackend(field, rays, config), WarpBackend(deepcopy(field), rays, config, device)


def _close(device: str) -> float:
    """How small `_apart` has to be. CUDA multiplies and adds at once, and rounds once for both."""
    return 1e-4 if device == "cpu" else 1e-3


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Relative difference, by norms."""
    return float(np.linalg.norm(theirs - ours) / max(np.linalg.norm(ours), 1e-12))


@needs_warp
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sharpness", [1.0, 8.0, 40.0])
@pytest.mark.parametrize("name", RAYS)
def test_loss_gradients_and_colours_equal_numbas(name, sharpness, device):
    field, rays = _field(), RAYS[name]()
    _, warp = _both(field, rays, device)
    everything = np.arange(len(rays.view))
    band = find_band(field, CONFIG.band, -1.0)
    gradients = np.zeros((1, len(band.nodes), COLUMNS), "f4")
    shown = np.empty((len(everything), 4), "f4")
    loss = accumulate_gradients(
        *rays.pick(everything),
        field.sdf,
        field.colors,
        band.slot,
        sharpness,
        CONFIG.mask_weight,
        CONFIG.huber,
        gradients,
        shown,
    )
    found, rendered = warp.drawn(everything, sharpness)
    assert found == pytest.approx(loss, rel=1e-5, abs=1e-9)
    assert np.abs(rendered.numpy() - shown).max() < 1e-4
    theirs = warp._gradients.numpy()
    for column in range(COLUMNS):
        assert _apart(gradients[0, :, column], theirs[:, column]) < _close(device), column
    if name == "untrusted":
        assert not theirs[:, SDF : RED + 3].any() and theirs.any()
    elif name == "missing":
        assert not theirs.any() and loss > 0
    else:
        assert theirs[:, SDF].any() and theirs[:, RED].any()


@needs_warp
@pytest.mark.parametrize("device", DEVICES)
def test_prior_gradients_equal_numbas(device):
    field = _field()
    numba, warp = _both(field, _from_inside(), device)
    rng = np.random.default_rng(0)
    count = 1000
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals[:100] = 0
    weights = rng.uniform(size=(2, count)).astype("f4")
    weights[:, 100:200] = 0
    points = rng.uniform(3, NODES - 4, size=(count, 3))
    # Half of them within the limit of the surface.
    out = points[::2] - (NODES - 1) / 2
    points[::2] = (
        out * (9.3 + rng.normal(size=(500, 1))) / np.linalg.norm(out, axis=1, keepdims=True)
        + (NODES - 1) / 2
    )
    batch = (points.astype("f4"), normals.astype("f4"), weights[0], weights[1])
    loss = numba.add_priors(batch)
    assert loss > 0
    assert warp.add_priors(batch) == pytest.approx(loss, rel=1e-5)
    ours, theirs = numba._state.gradients.sum(axis=0), warp._gradients.numpy()
    assert _apart(ours[:, SDF], theirs[:, SDF]) < _close(device)
    assert not theirs[:, RED:].any()


@needs_warp
@pytest.mark.parametrize("device", DEVICES)
def test_steps_equal_numbas(device):
    """Two steps of a band of which a part is hidden, from the same gradients."""
    field = _field()
    field.seen[:] = 1
    field.seen[: NODES // 3] = 0
    numba, warp = _both(field, _from_inside(), device)
    assert 0.1 < warp._hidden.numpy().mean() < 0.9
    for number in (1, 2):
        gradients = np.random.default_rng(number).normal(size=warp._gradients.shape).astype("f4")
        gradients[::7] = 0
        numba._state.gradients[0] = gradients
        warp._gradients.assign(gradients)
        for each in (numba, warp):
            each.step(number, 5000, 0.7)
        assert not warp._gradients.numpy().any()
    warp.store()
    for ours, theirs, atol in (
        (field.sdf, warp._field.sdf, 2e-5),
        (field.colors, warp._field.colors, 1e-6),
        (field.seen, warp._field.seen, 1e-6),
        (numba._state.first_moment, warp._first_moment.numpy(), 1e-5),
        (numba._state.second_moment, warp._second_moment.numpy(), 1e-4),
    ):
        assert np.allclose(theirs, ours, rtol=1e-4, atol=atol)
    assert np.abs(field.sdf - _field().sdf).max() > 0.1


@needs_warp
@pytest.mark.parametrize("device", DEVICES)
def test_distances_and_band_equal_numbas(device):
    """Two balls, one of them hollow and half a voxel from the grid's border, far apart."""
    grid = Grid(np.zeros(3), 1.0, (40, 34, 90))
    at = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    small = np.linalg.norm(at - [9, 9, 10], axis=-1) - 6.4
    shell = np.abs(np.linalg.norm(at - [22, 17, 60], axis=-1) - 11) - 2
    # Steep here and flat there: what comes out must not depend on it.
    bent = np.minimum(small, shell) * (0.3 + at[..., 0] / 20)
    field = Field(
        grid,
        close_border(bent.astype("f4")),
        np.zeros((*grid.shape, 3), "f4"),
        (at[..., 2] / 60).astype("f4"),
    )
    _, warp = _both(field, _from_inside(), device)
    warp.refresh(lambda: None)
    warp.store()
    expected = redistance(field.sdf)
    assert expected.max() > 20
    assert np.abs(warp._field.sdf - expected).max() < 1e-3
    field.sdf = warp._field.sdf
    band = find_band(field, CONFIG.band, unseen_below(field))
    assert np.array_equal(warp._nodes.numpy(), band.nodes)
    assert np.array_equal(warp._slot.numpy(), band.slot)
    differ = (warp._hidden.numpy() != band.hidden).mean()
    assert differ == 0 if device == "cpu" else differ < 1e-3
    assert 0 < unseen_below(field) < 1


@needs_warp
@pytest.mark.parametrize("device", DEVICES)
def test_nodes_that_stay_in_the_band_keep_their_moments(device):
    numba, warp = _both(_field(), _from_all_around(500, 0), device)
    warp._first_moment.assign(np.random.default_rng(0).normal(size=(len(warp._nodes), 4)))
    warp._second_moment.assign(np.random.default_rng(1).uniform(size=(len(warp._nodes), 4)))
    numba._state.first_moment[:] = warp._first_moment.numpy()
    numba._state.second_moment[:] = warp._second_moment.numpy()
    # The surface moves, by more than a voxel here and there.
    numba._field.sdf += np.random.default_rng(2).uniform(0.5, 2, size=(NODES, 1, 1)).astype("f4")
    warp._sdf.assign(numba._field.sdf)
    before = len(warp._nodes)
    for each in (numba, warp):
        each.refresh(lambda: None)
    nodes, kept = warp._nodes.numpy(), numba._state.first_moment
    assert np.array_equal(nodes, numba._state.band.nodes) and len(nodes) != before
    assert 0 < (kept == 0).all(axis=1).mean() < 0.5
    assert np.array_equal(warp._first_moment.numpy(), kept)
    assert np.array_equal(warp._second_moment.numpy(), numba._state.second_moment)


@needs_warp
@pytest.mark.parametrize("device", DEVICES)
def test_a_fit_by_warp_is_as_good_as_numbas(device, monkeypatch):
    from hi3d_core.surface.warp_backend import WarpBackend

    views = sphere_views(Cameras.orbit(10, 10, width=96, height=96))
    placement = locate(views)
    local = replace(views, cameras=views.cameras.in_frame(placement.center, placement.scale))
    config = SurfaceConfig(
        levels=(Level(24, 48, 22), Level(32, 96, 22)), rays=2048, cavity_rounds=0
    )
    ours = fit_surface(local, placement, config)
    opened = []

    def begin(torch_device, *arguments):
        opened.append(torch_device)
        return WarpBackend(*arguments, device)

    monkeypatch.setattr(fit, "begin_fit", begin)
    previews = []
    theirs = fit_surface(
        local, placement, config, device=torch.device("cuda"), on_preview=previews.append
    )
    # Two levels, and the colours of what is searched for between them.
    assert opened == [torch.device("cuda")] * 3
    volumes = [
        _volume(extract_mesh(each).from_frame(placement.center, placement.scale))
        for each in (ours, theirs)
    ]
    # The poles of an orbit's hull are no ball's, and both fits have them alike.
    assert volumes[1] == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.02)
    assert volumes[1] == pytest.approx(volumes[0], rel=0.001)
    seen = (np.abs(ours.sdf) < 1) & (ours.seen > unseen_below(ours))
    assert np.abs(theirs.sdf - ours.sdf)[seen].mean() < 0.01
    # What previews show is the field as it is by then, in the ball's own colours by the end.
    first, last = previews[0][0], previews[-1][0]
    assert not torch.equal(first, last)
    shown = last[last.shape[0] // 2 - 20 : last.shape[0] // 2 + 20, last.shape[1] // 2]
    assert float(shown.std()) > 0.05


def _volume(mesh) -> float:
    corners = mesh.vertices[mesh.faces].double()
    return float(torch.linalg.det(corners).sum() / 6)


@needs_warp
def test_kernels_have_a_name_that_can_be_a_files():
    """Warp makes files of it, and ComfyUI imports the pack under its folder's path."""
    from hi3d_core.surface.warp_kernels import MODULE, add_ray_gradients

    assert re.fullmatch(r"\w+", MODULE)
    assert add_ray_gradients.module.name == MODULE


@needs_warp
@pytest.mark.parametrize("device", DEVICES)
def test_a_surface_that_vanished_is_refused(device):
    from hi3d_core.surface.warp_backend import WarpBackend

    field = _field()
    field.sdf[:] = 20
    with pytest.raises(ValueError, match="the surface vanished"):
        WarpBackend(field, _from_inside(), CONFIG, device)


@pytest.fixture
def said(monkeypatch, caplog):
    monkeypatch.setattr(backend, "_said", set())
    return caplog


def test_without_cuda_the_cpu_fits_and_nothing_is_said(monkeypatch, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not can_fit_on(torch.device("cuda")) and not can_fit_on(torch.device("cpu"))
    assert pipeline._device_with(can_fit_on, None) == torch.device("cpu")
    assert not said.records


def test_with_cuda_and_without_warp_one_line_says_what_would_help(monkeypatch, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(optional, "is_available", lambda module: False)
    for _ in range(2):
        assert pipeline._device_with(can_fit_on, None) == torch.device("cpu")
    (line,) = said.messages
    assert "pip install warp-lang" in line


@needs_warp
@pytest.mark.parametrize("works", [False, True])
def test_with_cuda_and_warp_it_is_asked_whether_it_can_use_it(works, monkeypatch, said):
    from hi3d_core.surface.warp_kernels import wp

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(wp, "is_cuda_available", lambda: works)
    assert can_fit_on(torch.device("cuda")) == works
    assert pipeline._device_with(can_fit_on, None).type == ("cuda" if works else "cpu")
    assert [("driver" in line) for line in said.messages] == ([] if works else [True])
    # The CPU that is asked for is the CPU.
    assert pipeline._device_with(can_fit_on, torch.device("cpu")).type == "cpu"


def test_the_cpu_is_numbas(monkeypatch):
    begun = begin_fit(torch.device("cpu"), _field(), _from_inside(), CONFIG)
    assert isinstance(begun, NumbaBackend)


@needs_warp
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_reconstruction_on_cuda_frees_what_it_took():
    from hi3d_core.surface.warp_kernels import wp

    assert can_fit_on(torch.device("cuda"))
    views = sphere_views(Cameras.orbit(8, 10, width=96, height=96))
    config = pipeline.ReconstructConfig(
        face_budget=2000,
        surface=SurfaceConfig(levels=(Level(24, 48, 25), Level(40, 96, 30)), rays=4096),
        texture=replace(pipeline.ReconstructConfig().texture, size=0),
    )
    mesh = pipeline.reconstruct(views, config, device=torch.device("cuda")).mesh
    assert _volume(mesh) == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.02)
    gc.collect()
    wp.synchronize()
    assert wp.get_mempool_used_mem_current("cuda:0") < 2**20
    assert wp.get_mempool_release_threshold("cuda:0") == 0
