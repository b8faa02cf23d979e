"""Views of a ball, each bent its own way: fitted and aligned in turn, they come nearer to exact."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hi3d_core.align.rounds import Round, align_in_rounds, align_to_mesh
from hi3d_core.surface.extract import extract_mesh
from hi3d_core.surface.fit import Level, fit_surface

from .cavity_scenes import SMALL, bent, orbit_at, placed, spots
from .texture_scenes import ball, views_of

_LEVEL = Level(32, 128, 25)
ROUNDS = (Round((_LEVEL,), 0.05, 1.5, 16.0), Round((_LEVEL,), 0.02, 0.5, 12.0))


@pytest.fixture(scope="module")
def scene():
    """Exact views in the placement's frame, the same bent by 2 pixels, and the placement."""
    exact, placement = placed(views_of(ball(), orbit_at(10, 128, count=9), spots, fine=2))
    return exact, bent(exact, 2.0), placement


def _off(views, exact) -> tuple[float, float]:
    """Mean difference of colours inside, and of coverage anywhere; the reference left out."""
    inside = (exact.alphas[1:] > 0.99) & (views.alphas[1:] > 0.99)
    colors = (views.images - exact.images)[1:].abs().mean(dim=-1)[inside].mean()
    return float(colors), float((views.alphas - exact.alphas)[1:].abs().mean())


def test_rounds_bring_views_nearer_to_the_exact_ones(scene):
    exact, given, placement = scene
    before = given.images.clone()
    steps: list[tuple[int, int]] = []
    aligned, trust = align_in_rounds(
        given,
        placement,
        SMALL,
        rounds=ROUNDS,
        on_step=lambda done, total: steps.append((done, total)),
    )
    colors, coverage = _off(given, exact)
    colors_after, coverage_after = _off(aligned, exact)
    assert colors_after < 0.75 * colors
    assert coverage_after < 0.85 * coverage
    # The user's own picture stays; the others are not changed in place.
    assert torch.allclose(aligned.images[0], given.images[0], atol=1e-5)
    assert torch.equal(given.images, before)
    assert aligned.cameras.width == given.cameras.width
    assert trust.shape == tuple(aligned.alphas.shape)
    assert trust.min() >= 0
    assert trust.max() == 1
    # Told: one count over all rounds, to its end.
    done = [step for step, _ in steps]
    assert done == sorted(done)
    assert {total for _, total in steps} == {2 * (25 + 2 * 9)}
    assert steps[-1][0] == steps[-1][1]


def test_rounds_may_be_cancelled_in_the_fit_and_in_the_alignment(scene):
    _, given, placement = scene
    for last in (5, 30):

        def cancel(done: int, total: int, last: int = last) -> None:
            if done == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            align_in_rounds(given, placement, SMALL, rounds=ROUNDS[:1], on_step=cancel)


def test_the_same_seed_gives_the_same_views(scene):
    _, given, placement = scene
    given = given[[0, 3, 6]]
    few = (replace(ROUNDS[0], levels=(Level(24, 64, 8),)),)
    thin = replace(SMALL, rays=1024)  # fewer than there are, so that chance has a say
    first, _ = align_in_rounds(given, placement, thin, rounds=few, seed=2)
    again, _ = align_in_rounds(given, placement, thin, rounds=few, seed=2)
    other, _ = align_in_rounds(given, placement, thin, rounds=few, seed=3)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.alphas, again.alphas)
    assert not torch.equal(first.images, other.images)


def test_a_finished_fit_says_how_far_each_view_was_off(scene):
    exact, given, placement = scene
    longer = replace(SMALL, levels=(Level(40, 128, 60),))
    field = fit_surface(exact, placement, longer)
    mesh = extract_mesh(field)
    same, found = align_to_mesh(given, field, mesh, 0.0)
    assert same is mesh
    assert found.shifts[0] == 0
    assert np.median(found.shifts[1:]) == pytest.approx(2.0, abs=0.6)
    colors, _ = _off(given, exact)
    assert _off(found.views, exact)[0] < 0.6 * colors
    assert found.views.cameras.width == given.cameras.width
    # Where views are doubtful it moves, by less than they differ, and they keep their own light.
    drift = torch.linspace(1, 0.8, len(given))[:, None, None, None]
    white = 1 - given.alphas[..., None]
    lit = replace(given, images=given.images * drift + white * (1 - drift))
    settled, kept = align_to_mesh(lit, field, mesh, 1.0)
    levelled = align_to_mesh(lit, field, mesh, 0.0)[1]
    moved = (settled.vertices - mesh.vertices).norm(dim=1).mean()
    pixel = 1.5 / placement.scale / float(given.cameras.intrinsics[0, 0, 0])
    assert 0.3 * pixel < float(moved) < 2 * pixel
    inside = (exact.alphas[-1] > 0.99) & (kept.views.alphas[-1] > 0.99)
    light = float(exact.images[-1][inside].mean())
    assert float(kept.views.images[-1][inside].mean()) == pytest.approx(0.8 * light, rel=0.02)
    assert float(levelled.views.images[-1][inside].mean()) == pytest.approx(light, rel=0.04)
