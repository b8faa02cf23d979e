"""Exported meshes, read back by us and by trimesh, judged by pictures and Khronos's validator."""

import json
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import Mesh
from hi3d_core.export import write_glb, write_mesh
from hi3d_core.mipmaps import sample_texture
from hi3d_core.read.mesh_file import read_meshes
from hi3d_core.render import render_mesh

TOOLS = Path(__file__).parents[1] / "tools"
SUFFIXES = (".glb", ".obj", ".ply", ".stl")


def globe(rows=12, columns=20) -> Mesh:
    """A textured sphere: a UV seam from pole to pole, closed once positions are merged.

    Its texture has no symmetry, so that a flip or a shift of coordinates shows.
    """
    v, u = torch.meshgrid(
        torch.linspace(0, 1, rows + 1), torch.linspace(0, 1, columns + 1), indexing="ij"
    )
    polar, azimuth = v * math.pi, (u % 1) * 2 * math.pi  # % 1: the seam is exactly closed
    sine = polar.sin() * ((v > 0) & (v < 1))  # and so are the poles
    points = torch.stack([sine * azimuth.sin(), polar.cos(), sine * azimuth.cos()], -1) * 0.4
    index = torch.arange((rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    below, above = torch.stack([a, b, c], -1)[:-1], torch.stack([a, c, d], -1)[1:]
    faces = torch.cat([below.reshape(-1, 3), above.reshape(-1, 3)])
    y, x = torch.meshgrid(torch.arange(64), torch.arange(128), indexing="ij")
    waves = 0.5 + 0.5 * torch.sin(x / 128 * 6 * math.pi) * torch.cos(y / 9)
    texture = torch.stack([x / 127, y / 63, waves], -1)
    texture[8:20, 70:90] = torch.tensor([1.0, 0, 0])
    return Mesh(points.reshape(-1, 3), faces, torch.stack([u, v], -1).reshape(-1, 2), texture)


def in_vertex_colors(mesh: Mesh) -> Mesh:
    colors = sample_texture(mesh.texture, mesh.uvs)
    return Mesh(mesh.vertices, mesh.faces, vertex_colors=colors)


def bare(mesh: Mesh) -> Mesh:
    return Mesh(mesh.vertices, mesh.faces)


def pictures(mesh) -> torch.Tensor:
    return render_mesh(mesh, Cameras.orbit(5, 25, 1.2, width=96, height=96)).images


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(max(float(((a - b) ** 2).mean()), 1e-12))


def corner_positions(mesh: Mesh) -> torch.Tensor:
    return mesh.vertices[mesh.faces]


def test_the_globe_itself_is_closed_and_faces_outward():
    mesh = globe()
    solid = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=True)
    solid.merge_vertices(merge_tex=True, merge_norm=True)
    assert solid.is_watertight
    assert solid.volume > 0.2


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("look", [globe, lambda: in_vertex_colors(globe()), lambda: bare(globe())])
def test_geometry_survives_bit_by_bit(tmp_path, suffix, look):
    mesh = look()
    path = tmp_path / f"globe{suffix}"
    write_mesh(mesh, path)
    (back,) = read_meshes(path)
    # Same triangles in the same order, whatever a format does to the numbering of vertices.
    assert torch.equal(corner_positions(back), corner_positions(mesh))
    second = trimesh.load(path, force="mesh", process=False)
    assert np.array_equal(second.triangles.astype(np.float32), corner_positions(mesh).numpy())
    second.merge_vertices(merge_tex=True, merge_norm=True)
    assert second.is_watertight
    assert second.volume > 0


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_a_textured_mesh_looks_the_same_after_the_round_trip(tmp_path, suffix):
    mesh = globe()
    write_mesh(mesh, tmp_path / f"globe{suffix}")
    (back,) = read_meshes(tmp_path / f"globe{suffix}")
    assert back.texture.shape == mesh.texture.shape
    assert (back.texture - mesh.texture).abs().max() <= 0.5 / 255 + 1e-6
    assert psnr(pictures(back), pictures(mesh)) > 50
    # The test must be able to fail: a texture upside down is far from equal.
    upside_down = replace(back, uvs=back.uvs * torch.tensor([1, -1]) + torch.tensor([0, 1]))
    assert psnr(pictures(upside_down), pictures(mesh)) < 20


def test_trimesh_sees_the_same_colours_in_the_texture(tmp_path):
    """A second reader, its own convention (v upwards): colours at the vertices agree."""
    mesh = globe()
    for suffix in (".glb", ".obj"):
        write_mesh(mesh, tmp_path / f"globe{suffix}")
        second = trimesh.load(tmp_path / f"globe{suffix}", force="mesh", process=False)
        u, v = second.visual.uv.T
        material = second.visual.material
        image = material.baseColorTexture if suffix == ".glb" else material.image
        pixels = np.asarray(image.convert("RGB")) / 255
        rows = np.clip(((1 - v) * 64).astype(int), 0, 63)
        columns = np.clip((u * 128).astype(int), 0, 127)
        mine = mesh.texture.numpy()
        for corner in range(3):
            at_second = pixels[rows, columns][second.faces[:, corner]]
            uvs = mesh.uvs[mesh.faces[:, corner]].numpy()
            expected = mine[
                np.clip((uvs[:, 1] * 64).astype(int), 0, 63),
                np.clip((uvs[:, 0] * 128).astype(int), 0, 127),
            ]
            # Coordinates on the border of a texel may fall either way.
            same = (np.abs(at_second - expected) < 0.03).all(axis=1)
            assert same.mean() > 0.9


@pytest.mark.parametrize(("suffix", "least"), [(".glb", 60), (".obj", 60), (".ply", 50)])
def test_vertex_colors_survive(tmp_path, suffix, least):
    mesh = in_vertex_colors(globe())
    path = tmp_path / f"globe{suffix}"
    write_mesh(mesh, path)
    assert psnr(pictures(read_meshes(path)), pictures(mesh)) > least


def test_glb_vertex_colors_are_linear_as_gltf_wants(tmp_path):
    mesh = replace(bare(globe()), vertex_colors=torch.full((273, 3), 0.5))
    write_glb(mesh, tmp_path / "grey.glb")
    document, binary = glb_chunks(tmp_path / "grey.glb")
    accessor = document["accessors"][
        document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]
    ]
    start = document["bufferViews"][accessor["bufferView"]]["byteOffset"]
    stored = np.frombuffer(binary, "<f4", count=3, offset=start)
    assert stored == pytest.approx(0.2140411, abs=1e-6)  # IEC 61966-2-1 of one half


def test_ply_takes_its_colors_from_the_texture_and_joins_the_seam(tmp_path):
    mesh = globe()
    write_mesh(mesh, tmp_path / "globe.ply")
    (back,) = read_meshes(tmp_path / "globe.ply")
    assert len(back.vertices) == 11 * 20 + 2
    # Where no seam is (columns 1 to 19), a vertex has the texture's colour.
    inner = (mesh.uvs[:, 0] > 0.01) & (mesh.uvs[:, 0] < 0.99) & (mesh.uvs[:, 1] > 0.01)
    inner &= mesh.uvs[:, 1] < 0.99
    expected = sample_texture(mesh.texture, mesh.uvs)[inner]
    nearest = torch.cdist(mesh.vertices[inner], back.vertices).argmin(dim=1)
    assert (back.vertex_colors[nearest] - expected).abs().max() < 1.01 / 255


def test_obj_names_its_companions_beside_it(tmp_path):
    write_mesh(globe(), tmp_path / "my globe.obj")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "my globe.obj",
        "my_globe.mtl",
        "my_globe.png",
    ]
    text = (tmp_path / "my globe.obj").read_text()
    assert "mtllib my_globe.mtl" in text
    assert "map_Kd my_globe.png" in (tmp_path / "my_globe.mtl").read_text()
    assert sum(line.startswith("v ") for line in text.splitlines()) == 11 * 20 + 2
    assert psnr(pictures(read_meshes(tmp_path / "my globe.obj")), pictures(globe())) > 50


def test_glb_normals_are_shared_across_the_seam(tmp_path):
    mesh = globe()
    write_glb(mesh, tmp_path / "globe.glb")
    document, binary = glb_chunks(tmp_path / "globe.glb")
    accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]]
    start = document["bufferViews"][accessor["bufferView"]]["byteOffset"]
    normals = np.frombuffer(binary, "<f4", accessor["count"] * 3, start).reshape(13, 21, 3)
    assert np.array_equal(normals[:, 0], normals[:, -1])
    outward = mesh.vertices.reshape(13, 21, 3).numpy() / 0.4
    assert np.abs(normals - outward)[1:-1].max() < 0.06


def test_glb_with_a_jpeg_texture(tmp_path):
    write_glb(globe(), tmp_path / "globe.glb", jpeg_quality=90)
    document, _ = glb_chunks(tmp_path / "globe.glb")
    assert document["images"][0]["mimeType"] == "image/jpeg"
    assert psnr(pictures(read_meshes(tmp_path / "globe.glb")), pictures(globe())) > 30
    with pytest.raises(ValueError, match="jpeg_quality"):
        write_glb(globe(), tmp_path / "globe.glb", jpeg_quality=0)


def test_glb_of_many_vertices_uses_wide_indices(tmp_path):
    count = 65_540
    vertices = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    faces = torch.tensor([[0, 1, 2], [count - 3, count - 2, count - 1]])
    mesh = Mesh(vertices, faces)
    write_glb(mesh, tmp_path / "many.glb")
    (back,) = read_meshes(tmp_path / "many.glb")
    assert torch.equal(corner_positions(back), corner_positions(mesh))


def test_the_frame_is_ours(tmp_path):
    """+Y stays up and +Z stays in front in every format."""
    arrow = Mesh(
        torch.tensor([[0.0, 0, 0], [0, 3, 0], [0, 0, 2], [1, 0, 0]]),
        torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]),
    )
    for suffix in SUFFIXES:
        write_mesh(arrow, tmp_path / f"arrow{suffix}")
        bounds = trimesh.load(tmp_path / f"arrow{suffix}", force="mesh").bounds
        assert bounds.tolist() == [[0, 0, 0], [1, 3, 2]]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_refuses_a_mesh_without_faces_and_writes_nothing(tmp_path, suffix):
    empty = Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 1]]))
    with pytest.raises(ValueError, match="no faces"):
        write_mesh(empty, tmp_path / f"empty{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mesh.fbx", "mesh", "mesh.gltf"])
def test_refuses_other_formats(tmp_path, name):
    with pytest.raises(ValueError, match=r"\.glb, \.obj, \.ply, \.stl"):
        write_mesh(globe(), tmp_path / name)


def test_an_obj_that_fails_half_way_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "a.obj").write_text("old")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("hi3d_core.export.obj.encode_picture", full)
    with pytest.raises(OSError, match="no space"):
        write_mesh(globe(), tmp_path / "a.obj")
    assert [path.name for path in tmp_path.iterdir()] == ["a.obj"]
    assert (tmp_path / "a.obj").read_text() == "old"


@pytest.mark.parametrize("look", [globe, lambda: in_vertex_colors(globe()), lambda: bare(globe())])
def test_khronos_validator_has_nothing_to_say(tmp_path, look):
    if shutil.which("node") is None or not (TOOLS / "node_modules" / "gltf-validator").is_dir():
        pytest.skip(
            "the Khronos glTF validator is missing: install Node.js, then "
            "npm install --prefix tests/tools"
        )
    write_glb(look(), tmp_path / "globe.glb")
    command = ["node", str(TOOLS / "validate_gltf.mjs"), str(tmp_path / "globe.glb")]
    report = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert report["messages"] == []
    # The validator itself works: a broken file gets errors.
    damaged = (tmp_path / "globe.glb").read_bytes().replace(b'"VEC3"', b'"VEC2"')
    (tmp_path / "globe.glb").write_bytes(damaged)
    report = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert report["numErrors"] > 0


def glb_chunks(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    size = int.from_bytes(data[12:16], "little")
    return json.loads(data[20 : 20 + size]), data[20 + size + 8 :]


def test_the_png_in_the_glb_is_the_texture(tmp_path):
    mesh = globe()
    write_glb(mesh, tmp_path / "globe.glb")
    document, binary = glb_chunks(tmp_path / "globe.glb")
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    start, length = view["byteOffset"], view["byteLength"]
    (tmp_path / "texture.png").write_bytes(binary[start : start + length])
    pixels = np.asarray(Image.open(tmp_path / "texture.png"))
    assert np.array_equal(pixels, np.rint(mesh.texture.numpy() * 255).astype(np.uint8))
