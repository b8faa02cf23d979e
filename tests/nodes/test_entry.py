import asyncio
import importlib
import sys

import pytest
import torch


def test_loading_leaves_the_search_path_alone(pack_on_a_stand_in):
    assert asyncio.run(pack_on_a_stand_in.comfy_entrypoint()) is not None
    loaded = [n for n in sys.modules if n.startswith("custom_nodes_stand_in.")]
    assert "custom_nodes_stand_in.nodes.extension" in loaded


@pytest.fixture
def comfy_types(pack_on_a_stand_in):
    return importlib.import_module(f"{pack_on_a_stand_in.__name__}.nodes.comfy_types")


def test_image_mask_and_cameras_join_over_white(comfy_types):
    cameras = comfy_types.Cameras.orbit(2, width=32, height=32)
    image = torch.rand(2, 16, 16, 3)
    mask = torch.zeros(2, 16, 16)
    mask[:, 4:12, 4:12] = 1
    views = comfy_types.to_orbit_views(image, mask, cameras)
    assert (views.cameras.width, views.cameras.height) == (16, 16)
    assert torch.allclose(views.images[:, 4:12, 4:12], image[:, 4:12, 4:12], atol=1e-6)
    assert (views.images[:, :4] == 1).all()
    assert torch.equal(comfy_types.from_orbit_views(views)[1], mask)


def test_views_survive_the_way_through_the_hosts_wires(comfy_types):
    cameras = comfy_types.Cameras.orbit(2, width=32, height=32)
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    alphas = (10.5 - x.hypot(y)).clamp(0, 1).expand(2, 32, 32)
    images = 0.3 * alphas[..., None] + (1 - alphas[..., None]).expand(2, 32, 32, 3)
    views = comfy_types.OrbitViews(images, alphas, cameras)
    again = comfy_types.to_orbit_views(*comfy_types.from_orbit_views(views), cameras)
    torch.testing.assert_close(again.images, views.images, atol=1e-4, rtol=0)
    assert torch.equal(again.alphas, views.alphas)


def test_the_hosts_tensors_are_left_alone_even_from_inference_mode(comfy_types):
    with torch.inference_mode():
        image, mask = torch.rand(2, 8, 8, 3), torch.rand(2, 8, 8)
    views = comfy_types.to_orbit_views(image, mask, comfy_types.Cameras.orbit(2))
    assert not views.images.is_inference() and not views.alphas.is_inference()
    before = image.clone()
    views.images.zero_()
    assert torch.equal(image, before)


def test_a_mask_from_elsewhere_is_refused(comfy_types):
    with pytest.raises(ValueError, match="2 in IMAGE, 2 in CAMERAS, 3 in MASK"):
        comfy_types.to_orbit_views(
            torch.rand(2, 8, 8, 3), torch.rand(3, 8, 8), comfy_types.Cameras.orbit(2)
        )


def test_a_mesh_survives_the_way_through_the_host(comfy_types):
    mesh = comfy_types.Mesh(
        torch.rand(4, 3),
        torch.tensor([[0, 1, 2], [1, 2, 3]]),
        uvs=torch.rand(4, 2),
        texture=torch.rand(8, 8, 3),
    )
    made = comfy_types.from_mesh(mesh)
    assert made.vertices.shape == (1, 4, 3) and made.faces.shape == (1, 2, 3)
    assert getattr(made, "vertex_colors", None) is None
    again = comfy_types.to_mesh(made)
    for name in ("vertices", "faces", "uvs", "texture"):
        assert torch.equal(getattr(again, name), getattr(mesh, name))
    # Padded, as in the host's batches of different meshes.
    made.vertices = torch.cat([made.vertices, torch.zeros(1, 3, 3)], dim=1)
    made.uvs = torch.cat([made.uvs, torch.zeros(1, 3, 2)], dim=1)
    made.faces = torch.cat([made.faces, torch.zeros(1, 5, 3, dtype=torch.int64)], dim=1)
    made.vertex_counts, made.face_counts = torch.tensor([4]), torch.tensor([2])
    assert torch.equal(comfy_types.to_mesh(made).faces, mesh.faces)
    assert torch.equal(comfy_types.to_mesh(made).uvs, mesh.uvs)


def test_several_meshes_and_none_are_refused(comfy_types):
    mesh = comfy_types.Mesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]]))
    made = comfy_types.from_mesh(mesh)
    made.vertices = made.vertices.expand(2, -1, -1)
    with pytest.raises(ValueError, match="2 meshes, expected one"):
        comfy_types.to_mesh(made)
    made.vertices, made.faces = made.vertices[:1], made.faces[:, :0]
    with pytest.raises(ValueError, match="no faces"):
        comfy_types.to_mesh(made)


def test_a_splat_is_turned_into_the_hosts_frame(comfy_types, pack_on_a_stand_in):
    core = f"{pack_on_a_stand_in.__name__}.hi3d_core.splat"
    rotations = importlib.import_module(f"{core}.rotations").matrices_from_quaternions
    colors = importlib.import_module(f"{core}.spherical_harmonics").colors_from_sh
    generator = torch.Generator().manual_seed(0)
    quaternions = torch.nn.functional.normalize(torch.randn(5, 4, generator=generator), dim=1)
    splat = comfy_types.Gaussians(
        torch.randn(5, 3, generator=generator),
        torch.rand(5, 3, generator=generator) + 0.1,
        quaternions,
        torch.rand(5, generator=generator),
        0.3 * torch.randn(5, 16, 3, generator=generator),
    )
    made = comfy_types.splat_tensors(splat)
    shapes = {name: tuple(value.shape) for name, value in made.items()}
    assert shapes == {
        "positions": (1, 5, 3),
        "scales": (1, 5, 3),
        "rotations": (1, 5, 4),
        "opacities": (1, 5, 1),
        "sh": (1, 5, 16, 3),
    }
    turn = torch.diag(torch.tensor([1.0, -1, -1]))  # 180 degrees about X
    assert torch.allclose(made["positions"][0], splat.means @ turn.T)
    axes = rotations(made["rotations"][0])
    assert torch.allclose(axes.abs(), (turn @ rotations(quaternions)).abs(), atol=1e-6)
    spread = (axes * splat.scales[:, None] ** 2) @ axes.transpose(1, 2)
    own = rotations(quaternions)
    expected = turn @ ((own * splat.scales[:, None] ** 2) @ own.transpose(1, 2)) @ turn.T
    assert torch.allclose(spread, expected, atol=1e-5)
    seen = torch.nn.functional.normalize(torch.randn(5, 3, generator=generator), dim=1)
    assert torch.allclose(colors(made["sh"][0], seen @ turn.T), colors(splat.sh, seen), atol=1e-5)
