"""What no view saw: handed out, painted, and baked back without touching the rest."""

from dataclasses import replace

import pytest
import torch

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import OrbitViews
from hi3d_core.texture import (
    TextureConfig,
    bake,
    bake_or_color,
    paint_unseen,
    project_vertex_colors,
    unseen_in_views,
)
from hi3d_core.unwrap import unwrap

from .texture_scenes import PICTURE, SIZE, ball, orbit, texel_places, views_of, waves

CONFIG = TextureConfig(size=SIZE)


@pytest.fixture(scope="module")
def baked():
    mesh = unwrap(ball(), SIZE)
    return bake(mesh, views_of(mesh, orbit()), CONFIG)


@pytest.fixture(scope="module")
def below():
    return Cameras.orbit(3, -70.0, width=PICTURE, height=PICTURE)


def test_unseen_texels_are_those_no_view_looks_at(baked):
    texels, places = texel_places(baked.mesh)
    unseen = baked.unseen.reshape(-1)[texels]
    assert unseen[places[:, 1] < -0.42].all()
    assert not unseen[(places[:, 1] > -0.25) & (places[:, 1] < 0.3)].any()
    assert not (baked.unseen & ~baked.covered).any()


def test_unseen_pixels_show_unseen_places(baked, below):
    masks = unseen_in_views(baked, torch_cat(orbit(), below))
    assert masks.shape == (15, PICTURE, PICTURE)
    places = views_of(baked.mesh, torch_cat(orbit(), below), paint=lambda p: p + 0.5)
    inside = places.alphas > 0.999
    height = places.images[..., 1] - 0.5
    assert float(masks[inside & (height < -0.42)].min()) > 0.99
    assert float(masks[inside & (height > -0.25) & (height < 0.3)].max()) < 0.01
    assert float(masks[places.alphas == 0].max()) == 0
    assert float(masks[:12].mean()) < 0.05 * float(masks[12:].mean()) + 0.01


def torch_cat(first: Cameras, second: Cameras) -> Cameras:
    return Cameras(
        torch.cat([first.camera_to_world, second.camera_to_world]),
        torch.cat([first.intrinsics, second.intrinsics]),
        first.width,
        first.height,
    )


def test_painting_fills_the_unseen_and_keeps_the_seen_to_the_bit(baked, below):
    """The painter knows the truth, but in a tone of its own."""
    painted = views_of(baked.mesh, below, gains=torch.tensor([[0.8, 0.9, 1.1]] * 3))
    after = paint_unseen(baked, painted, CONFIG)
    seen = baked.covered & ~baked.unseen
    assert torch.equal(after.mesh.texture[seen], baked.mesh.texture[seen])
    assert torch.equal(after.certainties[seen], baked.certainties[seen])
    texels, places = texel_places(baked.mesh)
    hidden = places[:, 1] < -0.42
    error = (after.mesh.texture.reshape(-1, 3)[texels] - waves(places)).abs()[hidden]
    before = (baked.mesh.texture.reshape(-1, 3)[texels] - waves(places)).abs()[hidden]
    assert float(error.mean()) < 0.012
    assert float(before.mean()) > 3 * float(error.mean())
    assert not after.unseen.reshape(-1)[texels][hidden].any()


def test_painting_begins_smoothly_at_the_border(baked, below):
    """A painter of black: nowhere does a texel step away from its neighbour on the surface."""
    black = views_of(baked.mesh, below, paint=lambda p: torch.full_like(p, 0.05))
    after = paint_unseen(baked, black, replace(CONFIG, level=False))
    texels, _ = texel_places(baked.mesh)
    certainty = baked.certainties.reshape(-1)[texels]
    change = (after.mesh.texture - baked.mesh.texture).reshape(-1, 3)[texels].abs().amax(1)
    assert float(change[certainty < 0.01].median()) > 0.2
    just_inside = (certainty < 0.5) & (certainty > 0.45)
    assert just_inside.any()
    assert float(change[just_inside].max()) < 0.03


def test_what_no_picture_shows_takes_the_colours_around_it(baked, below):
    """One picture of the underside leaves a part of it out."""
    one = views_of(baked.mesh, below[[0]], paint=lambda p: torch.full_like(p, 0.1))
    weights = torch.ones_like(one.alphas)
    after = paint_unseen(baked, one, replace(CONFIG, level=False), weights=weights)
    left = after.unseen
    assert float(left.float().sum()) < float(baked.unseen.float().sum())
    again = paint_unseen(after, one, replace(CONFIG, level=False))
    seen = after.covered & ~after.unseen
    assert torch.equal(again.mesh.texture[seen], after.mesh.texture[seen])


def test_nothing_unseen_changes_nothing(baked, below):
    sure = replace(baked, certainties=torch.ones_like(baked.certainties))
    after = paint_unseen(sure, views_of(baked.mesh, below), CONFIG)
    assert torch.equal(after.mesh.texture[baked.covered], baked.mesh.texture[baked.covered])
    assert float(unseen_in_views(sure, below).max()) == 0


def test_painting_tells_its_progress_and_can_be_cancelled(baked, below):
    calls = []
    painted = views_of(baked.mesh, below)
    paint_unseen(baked, painted, CONFIG, on_step=lambda *step: calls.append(step))
    assert calls[-1][0] == calls[-1][1]

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        paint_unseen(baked, painted, CONFIG, on_step=cancel)


def test_vertices_are_coloured_where_unwrapping_fails(caplog):
    mesh = ball()
    views = views_of(mesh, orbit())
    expected = project_vertex_colors(mesh, views, CONFIG)

    def refuse(mesh, size):
        raise RuntimeError("no charts today")

    colored = bake_or_color(mesh, views, CONFIG, unwrap=refuse)
    assert "no charts today" in caplog.text
    assert colored.mesh.texture is None
    assert torch.equal(colored.mesh.vertex_colors, expected.vertex_colors)
    assert colored.unseen.numel() == 0
    with pytest.raises(ValueError, match="no texture"):
        unseen_in_views(colored, views.cameras)
    with pytest.raises(ValueError, match="no texture"):
        paint_unseen(colored, views)


def test_size_nought_asks_for_vertex_colours():
    mesh = ball()
    views = views_of(mesh, orbit())
    colored = bake_or_color(mesh, views, TextureConfig(size=0))
    assert colored.mesh.texture is None
    assert colored.mesh.vertex_colors is not None
    with pytest.raises(ValueError, match="bake_or_color"):
        bake(unwrap(mesh, SIZE), views, TextureConfig(size=0))


def test_what_can_be_unwrapped_gets_a_texture():
    mesh = ball()
    views = views_of(mesh, orbit())
    textured = bake_or_color(mesh, views, CONFIG)
    assert torch.equal(textured.mesh.texture, bake(unwrap(mesh, SIZE), views, CONFIG).mesh.texture)


def test_cancelling_is_no_failure_to_unwrap():
    mesh = ball()

    def cancel(done: int, total: int) -> None:
        raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        bake_or_color(mesh, views_of(mesh, orbit(3)), CONFIG, on_step=cancel)


def test_blank_pictures_paint_nothing(baked, below):
    blank = OrbitViews(torch.ones(3, PICTURE, PICTURE, 3), torch.zeros(3, PICTURE, PICTURE), below)
    after = paint_unseen(baked, blank, CONFIG)
    assert torch.equal(after.unseen, baked.unseen)
