"""A reference picture: found where it was put, and the one that decides the colour."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from hi3d_core.cameras import Cameras, pixel_rays
from hi3d_core.datatypes import OrbitViews
from hi3d_core.texture import (
    TextureConfig,
    bake,
    project_vertex_colors,
    reference_picture,
    register_reference,
)
from hi3d_core.texture.reference import PicturePlace, find_place, placed_camera
from hi3d_core.unwrap import unwrap

from .texture_scenes import ball, orbit, stripes, texel_places, views_of, waves

SIZE = 512


def taken(place: PicturePlace, width: int, tone=(1.0, 1.0, 1.0), paint=waves) -> OrbitViews:
    """A picture of the ball with another crop than its camera says."""
    camera = orbit(12)[[0]].resized(width, width)
    views = views_of(ball(), placed_camera(camera, place), paint, torch.tensor([tone]), fine=2)
    return replace(views, cameras=camera)


@pytest.mark.parametrize(
    ("place", "width", "tone"),
    [
        (PicturePlace(1.15, 0.03, -0.02), 300, (0.85, 1.0, 0.9)),
        (PicturePlace(0.85, -0.05, 0.04), 200, (1.2, 1.1, 1.0)),
        (PicturePlace(1.3, 0.1, 0.1), 128, (1.0, 1.0, 1.0)),  # leaves the frame
    ],
)
def test_scale_and_shift_are_found_whatever_the_tone(place, width, tone):
    frame = views_of(ball(), orbit(12)[[0]])
    found = find_place(taken(place, width, tone), frame)
    focal = float(frame.cameras.intrinsics[0, 0, 0])
    assert abs(found.scale / place.scale - 1) < 0.001
    assert abs(found.shift_x - place.shift_x) * focal < 0.1  # pixels of the frame
    assert abs(found.shift_y - place.shift_y) * focal < 0.1
    assert found.is_good


def test_the_picture_itself_is_left_as_it_is():
    picture = taken(PicturePlace(1.1, 0.02, 0.0), 300)
    registered = register_reference(picture, views_of(ball(), orbit(12)))
    assert torch.equal(registered.images, picture.images)
    assert registered.cameras.width == 300
    true = picture.cameras.intrinsics[0, 0, 0] * 1.1
    assert float(registered.cameras.intrinsics[0, 0, 0]) == pytest.approx(float(true), rel=1e-3)
    assert torch.equal(registered.cameras.camera_to_world, picture.cameras.camera_to_world)


def test_a_picture_of_something_else_is_left_out(caplog):
    views = views_of(ball(), orbit(12))
    bar = torch.zeros(1, 128, 128)
    bar[:, 60:68, 10:118] = 1
    other = OrbitViews(1 - 0.8 * bar[..., None].expand(-1, -1, -1, 3), bar, views.cameras[[0]])
    assert register_reference(other, views) is None
    assert "left out" in caplog.text
    inverted = OrbitViews(
        (1 - views.images[[6]]) * views.alphas[[6], ..., None] + 1 - views.alphas[[6], ..., None],
        views.alphas[[6]],
        views.cameras[[0]],
    )
    assert register_reference(inverted, views) is None


def test_refuses_a_picture_from_where_no_view_is():
    views = views_of(ball(), orbit(12))
    aside = Cameras.orbit(1, 15.0, width=128, height=128, start_azimuth_degrees=15)
    with pytest.raises(ValueError, match=r"15\.\d degrees|14\.\d degrees"):
        register_reference(replace(views[[0]], cameras=aside), views)
    with pytest.raises(ValueError, match="expected one picture"):
        register_reference(views, views)


@pytest.fixture(scope="module")
def scene():
    """Views too coarse for the stripes, and a reference that is not, each with its own tone."""
    mesh = unwrap(ball(), SIZE)
    gains = torch.linspace(0.9, 1.1, 12)[:, None].expand(-1, 3)
    views = views_of(mesh, orbit(12), waves, gains)
    reference = views_of(mesh, orbit(12)[[0]].resized(640, 640), stripes, fine=2)
    return mesh, views, reference


def test_the_reference_wins_where_it_sees_well_and_sets_the_tone(scene):
    mesh, views, reference = scene
    baked = bake(mesh, views, TextureConfig(size=SIZE), reference=reference)
    texels, places = texel_places(mesh, SIZE)
    colors = baked.mesh.texture.reshape(-1, 3)[texels]
    toward = reference.cameras.positions[0]
    normals = places / places.norm(dim=1, keepdim=True)
    facing = toward - places
    cosine = (normals * facing).sum(1) / facing.norm(dim=1)
    front = cosine > 0.8
    assert front.sum() > 5000
    assert float((colors - stripes(places)).abs()[front].mean()) < 0.01
    without = bake(mesh, views, TextureConfig(size=SIZE)).mesh.texture.reshape(-1, 3)[texels]
    assert float((without - stripes(places)).abs()[front].mean()) > 0.06
    # Elsewhere the views have its tone, so nothing steps where it ends.
    behind = (cosine < 0) & (baked.certainties.reshape(-1)[texels] > 0.99)
    assert behind.sum() > 5000
    assert float((colors - waves(places)).abs()[behind].mean()) < 0.012
    # The stripes' strength falls off smoothly, not all at once.
    strength = ((colors - waves(places)) * (stripes(places) - waves(places))).sum(1)
    strength = strength / (stripes(places) - waves(places)).square().sum(1).clamp(min=1e-4)
    strong = (stripes(places) - waves(places)).abs().amax(1) > 0.09
    bands = [
        float(strength[strong & (cosine > low) & (cosine < low + 0.08)].median())
        for low in (0.2, 0.28, 0.36, 0.44, 0.52, 0.6)
    ]
    assert bands[0] < 0.2
    assert bands[-1] > 0.8
    steps = [after - before for before, after in pairwise(bands)]
    assert min(steps) > -0.1, bands
    assert max(steps) < 0.5, bands


def test_weight_nought_leaves_the_reference_out_to_the_bit(scene):
    mesh, views, reference = scene
    off = TextureConfig(size=SIZE, reference_weight=0.0)
    with_it = bake(mesh, views, off, reference=reference)
    without = bake(mesh, views, off)
    assert torch.equal(with_it.mesh.texture, without.mesh.texture)
    half = bake(mesh, views, TextureConfig(size=SIZE, reference_weight=0.5), reference=reference)
    texels, places = texel_places(mesh, SIZE)
    front = (places @ reference.cameras.forwards[0]) < -0.4
    mixed = half.mesh.texture.reshape(-1, 3)[texels][front]
    middle = (waves(places) + stripes(places))[front] / 2
    assert float((mixed - middle).abs().mean()) < 0.02


def test_what_only_the_reference_sees_is_its_own(scene):
    """No other view is on its side, and at grazing angles it still says more than a guess."""
    mesh, views, reference = scene
    baked = bake(mesh, views[[5, 6, 7]], TextureConfig(size=SIZE), reference=reference)
    texels, places = texel_places(mesh, SIZE)
    front = (places @ reference.cameras.forwards[0]) < -0.3
    assert float(baked.certainties.reshape(-1)[texels][front].min()) > 0.9
    colors = baked.mesh.texture.reshape(-1, 3)[texels]
    assert float((colors - stripes(places)).abs()[front].mean()) < 0.02


def test_finer_than_the_texture_it_is_averaged_not_picked_from():
    """Stripes of less than a texel must not come out as moiré."""
    mesh = unwrap(ball(), 64)
    views = views_of(mesh, orbit(12))
    reference = views_of(
        mesh,
        orbit(12)[[0]].resized(768, 768),
        lambda p: waves(p) + 0.2 * torch.sign(torch.sin(400 * p[..., :1])),
        fine=1,
    )
    baked = bake(mesh, views, TextureConfig(size=64), reference=reference)
    texels, places = texel_places(mesh, 64)
    front = (places @ reference.cameras.forwards[0]) < -0.36
    error = (baked.mesh.texture.reshape(-1, 3)[texels] - waves(places)).abs()[front]
    assert float(error.mean()) < 0.06  # 0.2 if single pixels were picked


def test_vertices_are_coloured_by_the_reference_too(scene):
    _, views, reference = scene
    plain = ball()
    colored = project_vertex_colors(plain, views, reference=reference).vertex_colors
    tinted = replace(reference, images=(reference.images * 0.8).clamp(0, 1))
    darker = project_vertex_colors(plain, views, reference=tinted).vertex_colors
    ratio = (darker / colored)[(plain.vertices[:, 1].abs() < 0.2)]
    assert float((ratio - 0.8).abs().mean()) < 0.02


def test_refuses_several_references_and_settings_out_of_range(scene):
    mesh, views, _ = scene
    with pytest.raises(ValueError, match="the reference has 12 views"):
        bake(mesh, views, TextureConfig(size=SIZE), reference=views)
    with pytest.raises(ValueError, match="reference_weight is 2"):
        TextureConfig(reference_weight=2)
    with pytest.raises(ValueError, match="anchor_view is 12"):
        bake(mesh, views, TextureConfig(size=SIZE, anchor_view=12))


def test_a_users_picture_gets_a_camera_whose_shorter_side_spans_the_view():
    camera = orbit(12)[[0]]
    colors = torch.rand(90, 150, 3, generator=torch.Generator().manual_seed(0))
    alpha = torch.zeros(90, 150)
    alpha[20:70, 50:100] = 1
    alpha[20:70, 75:76] = 0.5
    view = reference_picture(colors, alpha, camera)
    assert (view.cameras.width, view.cameras.height) == (150, 90)
    assert torch.equal(view.cameras.camera_to_world, camera.camera_to_world)
    # Straight colours come out over white.
    over_white = colors * alpha[..., None] + 1 - alpha[..., None]
    assert torch.allclose(view.images[0], over_white, atol=1e-5)
    assert torch.equal(view.alphas[0], alpha)
    # The square in the picture's middle looks where the view looks.
    square = pixel_rays(view.cameras)[1][0, :, 30:120]
    frame = pixel_rays(camera.resized(90, 90))[1][0]
    assert torch.allclose(square, frame, atol=1e-5)


def test_a_users_picture_is_registered_like_any_other():
    true = PicturePlace(1.1, 0.02, -0.01)
    seen = taken(true, 300)
    alpha = seen.alphas[0]
    straight = (seen.images[0] - 1 + alpha[..., None]) / alpha[..., None].clamp_min(1e-6)
    views = views_of(ball(), orbit(12))
    picture = reference_picture(straight.clamp(0, 1), alpha, views.cameras[[0]])
    assert torch.allclose(picture.images, seen.images, atol=1e-4)
    found = register_reference(picture, views)
    expected = placed_camera(seen.cameras, true).intrinsics
    assert torch.allclose(found.cameras.intrinsics, expected, atol=0.3)


def test_a_users_picture_without_alpha_is_cut_out():
    seen = taken(PicturePlace(1.0, 0.0, 0.0), 200)
    picture = reference_picture(seen.images[0], None, seen.cameras)
    assert float((picture.alphas - seen.alphas).abs().mean()) < 0.01


def test_a_users_picture_needs_one_camera_and_an_object():
    with pytest.raises(ValueError, match="got 12 cameras, expected that of one view"):
        reference_picture(torch.rand(64, 64, 3), None, orbit(12))
    with pytest.raises(ValueError):
        reference_picture(torch.ones(64, 64, 3), torch.zeros(64, 64), orbit(12)[[0]])
