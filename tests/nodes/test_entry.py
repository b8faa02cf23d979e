import asyncio
import importlib
import sys

import pytest
import torch


def test_the_host_gets_an_extension(pack_on_the_host):
    extension = asyncio.run(pack_on_the_host.comfy_entrypoint())
    assert asyncio.run(extension.get_node_list()) == []


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
    with pytest.raises(ValueError, match="belongs to these pictures"):
        comfy_types.to_orbit_views(
            torch.rand(2, 8, 8, 3), torch.rand(3, 8, 8), comfy_types.Cameras.orbit(2)
        )


def test_mesh_and_splat_get_the_hosts_batch_dimension(comfy_types):
    mesh = comfy_types.Mesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]]), uvs=torch.rand(3, 2))
    tensors = comfy_types.mesh_tensors(mesh)
    assert set(tensors) == {"vertices", "faces", "uvs"}
    assert tensors["faces"].shape == (1, 1, 3)
    quaternions = torch.tensor([[1.0, 0, 0, 0]]).expand(5, 4)
    splat = comfy_types.Gaussians(
        torch.rand(5, 3), torch.ones(5, 3), quaternions, torch.rand(5), torch.rand(5, 1, 3)
    )
    shapes = {name: tuple(value.shape) for name, value in comfy_types.splat_tensors(splat).items()}
    assert shapes == {
        "positions": (1, 5, 3),
        "scales": (1, 5, 3),
        "rotations": (1, 5, 4),
        "opacities": (1, 5, 1),
        "sh": (1, 5, 1, 3),
    }
