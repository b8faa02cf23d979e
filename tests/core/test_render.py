"""Rendered meshes: exact colours, textures the right way up, and agreement with OpenGL's."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from hi3d_core.cameras import Cameras, opengl_to_opencv, pixel_rays
from hi3d_core.datatypes import Mesh
from hi3d_core.read.mesh_file import read_meshes
from hi3d_core.render import render_mesh

SHARED = Path(__file__).parents[3] / "shared"


def wall(texture=None, colors=None, half=0.5, z=0.0) -> Mesh:
    """A square that faces +Z; its texture is upright for a viewer there."""
    vertices = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * half
    vertices[:, 2] = z
    uvs = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), uvs, texture, colors)


def front(size=64, **settings) -> Cameras:
    return Cameras.orbit(1, width=size, height=size, **settings)


def test_wall_is_where_and_what_it_should_be():
    """Closed form: the square projects to a square, at depth 1.5, with its normal."""
    color = torch.tensor([0.2, 0.5, 0.8])
    cameras = front(64)
    views = render_mesh(wall(colors=color.expand(4, 3)), cameras)
    side = float(cameras.intrinsics[0, 0, 0]) / 1.5
    assert float(views.alphas.sum()) == pytest.approx(side**2, rel=0.02)
    assert views.images[0, 32, 32].tolist() == pytest.approx(color.tolist())
    assert views.depths[0, 32, 32] == pytest.approx(1.5)
    assert views.normals[0, 32, 32].tolist() == pytest.approx([0, 0, 1])
    assert views.images[0, 0, 0].tolist() == [1, 1, 1]
    assert views.depths[0, 0, 0] == 0
    over_white = views.alphas[..., None] * color + 1 - views.alphas[..., None]
    torch.testing.assert_close(views.images, over_white)
    partly = (views.alphas > 0) & (views.alphas < 1)
    assert partly.any()
    assert (views.depths[partly] - 1.5).abs().max() < 1e-6  # not mixed with the background's 0


def test_texture_is_upright_and_not_mirrored():
    texture = torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(0))
    image = render_mesh(wall(texture), front(65)).images[0]
    # The square spans 65 / (2 tan(fov/2) 1.5) = 47 pixels, so texel centres lie 12 off the middle.
    for row, y in enumerate((20, 44)):
        for column, x in enumerate((20, 44)):
            torch.testing.assert_close(image[y, x], texture[row, column], rtol=0, atol=0.02)


def test_texture_is_perspective_correct():
    """A texture that holds its own coordinates, on a slanted wall, against ray-plane maths."""
    ramp = (torch.arange(256) + 0.5) / 256
    texture = torch.stack([ramp.expand(256, 256), ramp[:, None].expand(256, 256)], -1)
    texture = torch.cat([texture, torch.zeros(256, 256, 1)], -1)
    cameras = Cameras.orbit(1, 25, 1.2, width=64, height=64, start_azimuth_degrees=50)
    views = render_mesh(wall(texture), cameras, supersample=1)
    origins, directions = pixel_rays(cameras)
    points = origins[:, None, None] - directions * (origins[0, 2] / directions[..., 2:])
    # Nearer to the border a pixel's footprint takes in the repeated other side.
    inside = (points[..., :2].abs() < 0.45).all(-1)
    assert inside.sum() > 200
    expected = torch.stack([points[..., 0] + 0.5, 0.5 - points[..., 1]], -1)
    torch.testing.assert_close(views.images[inside][:, :2], expected[inside], rtol=0, atol=3e-3)
    torch.testing.assert_close(
        views.depths[inside],
        (-origins[0, 2] / directions[..., 2])[inside],
        rtol=1e-5,
        atol=0,
    )


def test_fine_textures_do_not_alias():
    """A checkerboard far finer than the pixels is even grey, also where the view grazes it."""
    board = (torch.arange(512)[:, None] + torch.arange(512)) % 2
    texture = board[..., None].expand(-1, -1, 3).float()
    for azimuth in (0.0, 60.0, 80.0):
        cameras = front(48, start_azimuth_degrees=azimuth)
        views = render_mesh(wall(texture), cameras, supersample=1)
        covered = views.images[views.alphas == 1]
        assert len(covered) > 100
        assert (covered - 0.5).abs().max() < 0.02


def test_texture_in_close_up_is_bilinear():
    texture = torch.tensor([0.0, 1.0])[None, :, None].expand(1, 2, 3)
    image = render_mesh(wall(texture, half=5.0), front(64), supersample=1).images[0, 32, :, 0]
    texels_a_pixel = 2 / 10 * 1.5 / float(front(64).intrinsics[0, 0, 0])
    expected = 0.5 + (torch.arange(64) - 31.5) * texels_a_pixel
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)


def test_the_back_is_drawn_with_its_normal_turned():
    cameras = Cameras.orbit(2, width=32, height=32)
    views = render_mesh(wall(), cameras)
    assert views.alphas[1, 16, 16] == 1
    assert views.normals[1, 16, 16].tolist() == pytest.approx([0, 0, -1], abs=1e-6)
    # Seen from behind, the left is the right: a vertex colour at -X appears on the right.
    colors = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 1, 1], [0, 0, 0]])
    image = render_mesh(wall(colors=colors), cameras).images
    assert image[0, 16, 24, 0] - image[0, 16, 8, 0] > 0.4
    assert image[1, 16, 8, 0] - image[1, 16, 24, 0] > 0.4


def test_several_meshes_share_one_depth_buffer():
    red = wall(colors=torch.tensor([1.0, 0, 0]).expand(4, 3), half=0.2, z=0.2)
    blue = wall(torch.tensor([0.0, 0, 1]).expand(4, 4, 3), half=0.5)
    for scene in ([red, blue], [blue, red]):
        image = render_mesh(scene, front()).images[0]
        assert image[32, 32].tolist() == [1, 0, 0]
        assert image[32, 14].tolist() == [0, 0, 1]


def test_sphere_normals_and_soft_shading():
    sphere = trimesh.creation.icosphere(4, 0.5)
    mesh = Mesh(torch.tensor(sphere.vertices).float(), torch.tensor(sphere.faces).long())
    cameras = Cameras.orbit(3, 20, width=64, height=64)
    views = render_mesh(mesh, cameras, shading="soft")
    origins, directions = pixel_rays(cameras)
    points = origins[:, None, None] + views.depths[..., None] * directions
    inside = views.alphas == 1
    error = (views.normals - points / 0.5)[inside].norm(dim=-1)
    assert error.mean() < 0.01
    lamp = (views.normals * -directions).sum(-1)
    brightness = views.images[..., 0]
    # Facing the lamp and the sky is bright, turning away from both is dark.
    bright = inside & (lamp > 0.9) & (views.normals[..., 1] > 0.3)
    dark = inside & (lamp < 0.4) & (views.normals[..., 1] < -0.3)
    assert brightness[bright].min() > brightness[dark].max() + 0.1
    colors = views.normal_images
    torch.testing.assert_close(colors[inside], views.normals[inside] * 0.5 + 0.5)
    assert (colors[views.alphas == 0] == 1).all()


def test_progress_and_cancelling():
    seen = []
    render_mesh(wall(), Cameras.orbit(3, width=8, height=8), on_step=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_mesh(wall(), front(8), on_step=cancel)


@pytest.mark.parametrize(
    ("mesh", "settings", "message"),
    [
        ([], {}, "no mesh"),
        (wall(), {"shading": "phong"}, "unlit, soft"),
        (wall(), {"supersample": 0}, "supersample"),
    ],
)
def test_refuses(mesh, settings, message):
    with pytest.raises(ValueError, match=message):
        render_mesh(mesh, front(8), **settings)


# The armchair is not among them: its parts have colour factors, which glTF means as linear light
# and the program that drew the reference pictures took as sRGB.
@pytest.mark.parametrize(
    "name",
    [
        "cc0_bread",
        "cc0_stoneLantern",
        "ccby_horse",
        "gso_glazed_rim_porcelain_ramekin",
        "scopia_cat",
        "scopia_old_jar",
        "scopia_teapot",
    ],
)
def test_agrees_with_opengl(name):
    folder = SHARED / "eval" / name
    if not folder.is_dir():
        pytest.skip(f"the optional reference pictures are missing: {folder}")
    description = json.loads((folder / "transforms_test.json").read_text())
    frames = description["frames"][::3]
    focal = description["fl_x"]
    intrinsics = torch.tensor([[focal, 0, 256], [0, focal, 256], [0, 0, 1]])
    poses = opengl_to_opencv(torch.tensor([frame["transform_matrix"] for frame in frames]))
    cameras = Cameras(poses, intrinsics.expand(len(frames), 3, 3), 512, 512)
    views = render_mesh(read_meshes(folder / "gt.glb"), cameras)
    for frame, image, alpha in zip(frames, views.images, views.alphas, strict=True):
        pixels = np.asarray(Image.open(folder / frame["file_path"])).astype(np.float32) / 255
        reference = torch.from_numpy(pixels)
        over_white = reference[..., :3] * reference[..., 3:] + 1 - reference[..., 3:]
        psnr = -10 * math.log10(float(((image - over_white) ** 2).mean()))
        # 58 to 66 dB, but where two surfaces coincide or a texture's seams run between pixels.
        assert psnr > (38 if name == "scopia_teapot" else 41 if name == "scopia_old_jar" else 55)
        assert (alpha - reference[..., 3]).abs().max() < 0.13
