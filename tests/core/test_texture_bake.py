"""Bake known colours from known views, and find them again in the texture."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import Mesh, OrbitViews
from hi3d_core.render import render_mesh
from hi3d_core.texture import (
    TextureConfig,
    bake,
    bake_texture,
    project_vertex_colors,
    suited_to_doubt,
)
from hi3d_core.texture.levelling import solve_gains
from hi3d_core.texture.witness import prepare_witness
from hi3d_core.unwrap import unwrap

from .texture_scenes import FINE, PICTURE, SIZE, ball, mesh_of, orbit, texel_places, views_of, waves

CONFIG = TextureConfig(size=SIZE)


@pytest.fixture(scope="module")
def painted_ball():
    mesh = unwrap(ball(), SIZE)
    return bake(mesh, views_of(mesh, orbit()), CONFIG)


def test_seen_texels_have_the_colour_of_their_place(painted_ball):
    texels, places = texel_places(painted_ball.mesh)
    sure = painted_ball.certainties.reshape(-1)[texels] > 0.99
    assert sure.float().mean() > 0.6
    error = (painted_ball.mesh.texture.reshape(-1, 3)[texels] - waves(places)).abs()
    assert float(error[sure].mean()) < 0.004
    assert float(error[sure].max()) < 0.03


def test_unseen_texels_continue_what_is_around_them(painted_ball):
    """No view shows the underside: it stays in the range of the colours at its border."""
    texels, places = texel_places(painted_ball.mesh)
    certainties = painted_ball.certainties.reshape(-1)[texels]
    colors = painted_ball.mesh.texture.reshape(-1, 3)[texels]
    below = places[:, 1] < -0.42
    assert float(certainties[below].max()) == 0
    rim = (certainties > 0.5) & (places[:, 1] < -0.2)
    assert (colors[below] >= colors[rim].amin(0) - 0.02).all()
    assert (colors[below] <= colors[rim].amax(0) + 0.02).all()
    # White behind the object is 0.3 away from its brightest colour: none of it got in.
    assert float(colors.amax()) < 0.72


def test_gaps_between_charts_are_filled(painted_ball):
    """Filtering at a chart's border must not pull in what lies beyond it."""
    texture, covered = painted_ball.mesh.texture, painted_ball.covered
    assert not covered.all()
    assert float(texture[~covered].amin()) > 0.15
    assert float(texture[~covered].amax()) < 0.72


def test_textured_mesh_looks_like_the_views(painted_ball):
    """The whole round, with the renderer as a second reader of uvs and texture."""
    cameras = Cameras.orbit(5, 25.0, width=PICTURE, height=PICTURE, start_azimuth_degrees=11)
    seen = render_mesh(painted_ball.mesh, cameras, supersample=FINE)
    truth = views_of(painted_ball.mesh, cameras)
    error = (seen.images - truth.images).square().mean()
    assert -10 * np.log10(float(error)) > 40


def test_two_bakes_are_equal_to_the_bit(painted_ball):
    again = bake(painted_ball.mesh, views_of(painted_ball.mesh, orbit()), CONFIG)
    assert torch.equal(again.mesh.texture, painted_ball.mesh.texture)


def test_equal_views_get_gains_of_exactly_one(painted_ball):
    assert torch.equal(painted_ball.gains, torch.ones(12, 3))


def test_planted_gains_are_undone():
    mesh = unwrap(ball(), SIZE)
    generator = torch.Generator().manual_seed(0)
    planted = 0.8 + 0.4 * torch.rand(12, 3, generator=generator)
    planted = planted / planted.log().mean(0).exp()
    views = views_of(mesh, orbit(), gains=planted)
    baked = bake(mesh, views, CONFIG)
    product = baked.gains * planted
    assert float((product / product.mean(0) - 1).abs().max()) < 0.015
    texels, places = texel_places(mesh)
    sure = baked.certainties.reshape(-1)[texels] > 0.99
    error = (baked.mesh.texture.reshape(-1, 3)[texels] - waves(places)).abs()[sure]
    assert float(error.mean()) < 0.01
    left_alone = bake_texture(mesh, views, TextureConfig(size=SIZE, level=False))
    worse = (left_alone.texture.reshape(-1, 3)[texels] - waves(places)).abs()[sure]
    assert float(error.mean()) < 0.3 * float(worse.mean())
    halfway = bake(mesh, views, TextureConfig(size=SIZE, level=0.5))
    assert torch.allclose(halfway.gains, baked.gains.sqrt(), atol=1e-5)


def test_doubtful_views_are_levelled_less_and_may_dissent_more():
    assert suited_to_doubt(CONFIG, 0.0) == CONFIG
    half = suited_to_doubt(CONFIG, 0.5)
    assert half == replace(CONFIG, level=0.5, outlier_spread=2 * CONFIG.outlier_spread)
    # A reference's tone is the right one, however the views differ.
    assert suited_to_doubt(CONFIG, 1.0, has_reference=True).level == 1
    with pytest.raises(ValueError, match="level"):
        TextureConfig(level=1.5)


def test_an_anchor_keeps_its_tone_and_the_others_come_to_it():
    mesh = unwrap(ball(), SIZE)
    planted = torch.linspace(0.8, 1.2, 12)[:, None] * torch.tensor([1.0, 0.95, 1.05])
    views = views_of(mesh, orbit(), gains=planted)
    anchored = bake(mesh, views, TextureConfig(size=SIZE, anchor_view=3))
    assert torch.equal(anchored.gains[3], torch.ones(3))
    product = anchored.gains * planted / planted[3]
    assert float((product - 1).abs().max()) < 0.02


def test_an_anchor_hands_its_tone_on_around_the_orbit():
    """A slow drift, each view beside the next only: the far side must not fall short."""
    drift = 0.3 * np.sin(np.arange(16) / 16 * np.pi) ** 2
    votes = np.zeros((16 * 100, 16, 4), dtype=np.float32)
    for i in range(16):
        for j in (i, (i + 1) % 16):
            votes[i * 100 : (i + 1) * 100, j] = [*[0.4 * np.exp(drift[j])] * 3, 1.0]
    gains = solve_gains(votes, anchor=0)
    assert np.abs(np.log(gains).mean(axis=1) + drift).max() < 0.03
    loose = solve_gains(votes)
    assert abs(float(np.log(loose).mean())) < 0.01


def test_weights_choose_among_views_but_never_hide_what_only_one_shows():
    mesh = unwrap(ball(), SIZE)
    views = views_of(mesh, orbit(2))
    spoiled = views_of(mesh, orbit(2), gains=torch.tensor([[1.0, 1, 1], [0.5, 1, 1]]))
    both = OrbitViews(
        torch.cat([views.images, spoiled.images[1:]]),
        torch.cat([views.alphas, spoiled.alphas[1:]]),
        Cameras(
            views.cameras.camera_to_world[[0, 1, 1]],
            views.cameras.intrinsics[[0, 1, 1]],
            PICTURE,
            PICTURE,
        ),
    )
    weights = torch.ones_like(both.alphas)
    weights[2] = 0  # beside an equal view that is right
    weights[0] = 0  # all alone on its side
    config = TextureConfig(size=SIZE, level=False)
    baked = bake(mesh, both, config, weights=weights)
    texels, places = texel_places(mesh)
    sure = baked.certainties.reshape(-1)[texels] > 0.99
    error = (baked.mesh.texture.reshape(-1, 3)[texels] - waves(places)).abs()
    for side in (places[:, 2] > 0.1, places[:, 2] < -0.1):
        assert (sure & side).sum() > 3000
        assert float(error[sure & side].mean()) < 0.006
    unweighted = bake(mesh, both, config).mesh.texture.reshape(-1, 3)[texels]
    assert float((unweighted - waves(places)).abs()[sure & (places[:, 2] < -0.1)].mean()) > 0.02
    with pytest.raises(ValueError, match="weights is"):
        bake(mesh, both, config, weights=weights[:2])
    with pytest.raises(ValueError, match="weights lie in"):
        bake(mesh, both, config, weights=weights + 1)


def test_trust_of_large_pictures_is_that_of_small_ones():
    """Above 1024 pixels edges are found at a fraction of the size: the same places are trusted."""
    mesh = ball()
    large = Cameras.orbit(1, 15.0, width=1280, height=1280)
    blank = torch.full((1, 1280, 1280, 3), 0.5)
    seen = views_of(mesh, large, fine=1).alphas
    coarse = prepare_witness(mesh, OrbitViews(blank, seen, large), 20.0)
    small = large.resized(640, 640)
    half = OrbitViews(blank[:, ::2, ::2], seen.reshape(1, 640, 2, 640, 2).mean((2, 4)), small)
    fine = prepare_witness(mesh, half, 10.0)
    assert coarse.trust.shape == (1, 1024, 1024)
    middle = coarse.trust[0, 512]
    expected = np.interp((np.arange(1024) + 0.5) / 1.6, np.arange(640) + 0.5, fine.trust[0, 320])
    assert np.abs(middle - expected).max() < 0.15
    assert np.abs(middle - expected).mean() < 0.01


def test_a_trace_of_background_beside_the_silhouette_does_not_spread():
    """A halo two pixels wide inside the mask: the unseen crown takes the colour further in."""
    mesh = unwrap(ball(), SIZE)
    views = views_of(mesh, orbit(12, 0.0), paint=lambda p: torch.full_like(p, 0.3))
    inside = (views.alphas > 0.99)[:, None].float()
    eroded = 1 - torch.nn.functional.max_pool2d(1 - inside, 5, 1, 2)[:, 0]
    halo = (inside[:, 0] - eroded).clamp(0, 1)[..., None]
    spoiled = OrbitViews(views.images + halo * 0.4, views.alphas, views.cameras)
    baked = bake(mesh, spoiled, TextureConfig(size=SIZE))
    texels, places = texel_places(mesh)
    crown = places[:, 1].abs() > 0.44
    assert crown.sum() > 500
    assert float((baked.mesh.texture.reshape(-1, 3)[texels][crown] - 0.3).abs().max()) < 0.15
    trusting = bake(mesh, spoiled, TextureConfig(size=SIZE, exact_edges=True)).mesh.texture
    assert float((trusting.reshape(-1, 3)[texels][crown] - 0.3).abs().max()) > 0.2


def test_what_stands_behind_does_not_take_the_colour_in_front():
    """A red screen stands between the first cameras and a green wall."""
    screen = trimesh.creation.box((0.3, 0.3, 0.02)).apply_translation((0, 0, 0.25))
    wall = trimesh.creation.box((0.9, 0.9, 0.02)).apply_translation((0, 0, -0.1))
    both = trimesh.util.concatenate([screen.subdivide().subdivide(), wall.subdivide().subdivide()])
    mesh = unwrap(mesh_of(both), SIZE)

    def paint(points: torch.Tensor) -> torch.Tensor:
        is_screen = (points[..., 2:] > 0.1).float()
        return is_screen * torch.tensor([0.9, 0.1, 0.1]) + (1 - is_screen) * torch.tensor(
            [0.1, 0.8, 0.1]
        )

    cameras = Cameras.orbit(24, 10.0, width=PICTURE, height=PICTURE)[[23, 0, 1]]
    baked = bake(mesh, views_of(mesh, cameras, paint), CONFIG)
    texels, places = texel_places(mesh)
    colors = baked.mesh.texture.reshape(-1, 3)[texels]
    seen = baked.certainties.reshape(-1)[texels] > 0.99
    wall_front = seen & (places[:, 2] < 0)
    screen_front = seen & (places[:, 2] > 0.255)
    assert wall_front.sum() > 1000
    assert screen_front.sum() > 100
    assert float(colors[wall_front, 0].max()) < 0.15
    assert float(colors[screen_front, 0].min()) > 0.8
    # On the wall straight behind the screen's middle no camera's ray ends.
    hidden = (places[:, 2].abs() < 0.095) & (places[:, :2].norm(dim=1) < 0.03)
    assert hidden.any()
    assert float(baked.certainties.reshape(-1)[texels][hidden].max()) < 0.01


def test_geometry_that_is_a_little_too_big_gets_no_white_fringe():
    """The mesh reaches one and a half pixels past the pictures' outline all around."""
    true = ball()
    views = views_of(true, orbit(), paint=lambda p: torch.full_like(p, 0.3))
    pixel = 1.5 / float(views.cameras.intrinsics[0, 0, 0])
    mesh = unwrap(ball(0.45 + 1.5 * pixel), SIZE)
    texture = bake_texture(mesh, views, CONFIG).texture
    assert float((texture - 0.3).abs().max()) < 0.02


def test_a_view_that_disagrees_is_outvoted():
    mesh = unwrap(ball(), SIZE)
    views = views_of(mesh, orbit(24))
    images = views.images.clone()
    spot = slice(PICTURE // 2 - 12, PICTURE // 2 + 12)
    images[5, spot, spot] = torch.tensor([1.0, 0.0, 1.0])
    spoiled = OrbitViews(images, views.alphas, views.cameras)
    texels, places = texel_places(mesh)
    error = (
        bake_texture(mesh, spoiled, CONFIG).texture.reshape(-1, 3)[texels] - waves(places)
    ).abs()
    front = places @ views.cameras.forwards[5] < -0.4
    assert float(error[front].mean()) < 0.03


def test_thin_parts_are_seen_although_they_are_all_edge():
    rod = trimesh.creation.cylinder(0.012, 0.9, sections=24).subdivide().subdivide()
    mesh = unwrap(
        mesh_of(rod.apply_transform(trimesh.transformations.rotation_matrix(1.57, [1, 0, 0]))), SIZE
    )
    baked = bake(mesh, views_of(mesh, orbit(), paint=lambda p: torch.full_like(p, 0.25)), CONFIG)
    texels, _ = texel_places(mesh)
    assert float(baked.certainties.reshape(-1)[texels].gt(0.2).float().mean()) > 0.5
    assert float((baked.mesh.texture - 0.25).abs().max()) < 0.05


def test_vertex_colours_agree_with_the_texture():
    mesh = ball()
    colored = project_vertex_colors(mesh, views_of(mesh, orbit()), CONFIG)
    upper = (mesh.vertices[:, 1] > -0.2) & (mesh.vertices[:, 1] < 0.3)
    error = (colored.vertex_colors - waves(mesh.vertices)).abs()[upper]
    assert float(error.max()) < 0.03


def test_nothing_seen_gives_grey_not_white():
    mesh = unwrap(ball(), SIZE)
    cameras = orbit(3)
    blank = OrbitViews(
        torch.ones(3, PICTURE, PICTURE, 3), torch.zeros(3, PICTURE, PICTURE), cameras
    )
    baked = bake(mesh, blank, CONFIG)
    assert float(baked.certainties.max()) == 0
    assert torch.allclose(baked.mesh.texture, torch.tensor(0.5))


def test_progress_is_told_and_can_cancel():
    mesh = unwrap(ball(), SIZE)
    views = views_of(mesh, orbit(3))
    calls = []
    bake_texture(mesh, views, CONFIG, on_step=lambda *step: calls.append(step))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    # The total is 1 until it is known; no step is left out, from none done to all.
    assert {call[1] for call in calls if call[0]} == {calls[-1][0]}
    assert sorted(set(done)) == list(range(calls[-1][1] + 1))

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bake_texture(mesh, views, CONFIG, on_step=cancel)


def test_refuses_what_it_cannot_texture():
    views = views_of(ball(), orbit(3))
    with pytest.raises(ValueError, match="unwrap it first"):
        bake_texture(ball(), views, CONFIG)
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 2))
    with pytest.raises(ValueError, match="no faces"):
        bake_texture(empty, views, CONFIG)
    with pytest.raises(ValueError, match="texture size is 5"):
        TextureConfig(size=5)
