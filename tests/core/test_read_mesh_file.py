"""Mesh files of other programs: transforms, materials, colour spaces, damage."""

import base64
import json

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from hi3d_core.cameras import Cameras
from hi3d_core.read.mesh_file import read_meshes
from hi3d_core.render import render_mesh

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")


def write_gltf(path, nodes, primitives, arrays, materials=(), images=()):
    """A hand-written glTF: arrays are (bytes, accessor without its view)."""
    blob, views, accessors = b"", [], []
    for data, accessor in arrays:
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": len(data)})
        accessors.append({**accessor, "bufferView": len(views) - 1})
        blob += data + b"\0" * (-len(data) % 4)
    uri = "data:application/octet-stream;base64," + base64.b64encode(blob).decode()
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": nodes,
        "meshes": [{"primitives": [primitive]} for primitive in primitives],
        "buffers": [{"byteLength": len(blob), "uri": uri}],
        "bufferViews": views,
        "accessors": accessors,
    }
    if materials:
        document["materials"] = list(materials)
    if images:
        document["images"] = [{"uri": uri} for uri in images]
        document["textures"] = [{"source": index} for index in range(len(images))]
    path.write_text(json.dumps(document))


def floats(array) -> tuple[bytes, dict]:
    array = np.asarray(array, "<f4")
    return array.tobytes(), {
        "componentType": 5126,
        "count": len(array),
        "type": f"VEC{array.shape[1]}",
    }


INDICES = (
    np.array([0, 1, 2], "<u2").tobytes(),
    {"componentType": 5123, "count": 3, "type": "SCALAR"},
)


def test_gltf_transforms_add_up_and_mirrors_keep_faces_outward(tmp_path):
    path = tmp_path / "scene.gltf"
    nodes = [
        {"children": [1, 2], "translation": [10, 0, 0]},
        {"mesh": 0, "scale": [2, 2, 2]},
        {"mesh": 0, "scale": [-1, 1, 1]},
    ]
    primitive = {"attributes": {"POSITION": 0}, "indices": 1}
    write_gltf(path, nodes, [primitive], [floats(TRIANGLE), INDICES])
    meshes = read_meshes(path)
    corners = [mesh.vertices[mesh.faces[0]] for mesh in meshes]
    assert len(corners) == 2
    large = max(corners, key=lambda c: float(c.max()))
    mirrored = min(corners, key=lambda c: float(c[:, 0].min()))
    assert {tuple(point) for point in large.tolist()} == {(10, 0, 0), (12, 0, 0), (10, 2, 0)}
    assert {tuple(point) for point in mirrored.tolist()} == {(10, 0, 0), (9, 0, 0), (10, 1, 0)}
    for corner in corners:
        normal = torch.linalg.cross(corner[1] - corner[0], corner[2] - corner[0])
        assert normal[2] > 0


def test_gltf_factors_are_linear_light(tmp_path):
    path = tmp_path / "grey.gltf"
    material = {"pbrMetallicRoughness": {"baseColorFactor": [0.2140411, 1, 0, 1]}}
    primitive = {"attributes": {"POSITION": 0}, "indices": 1, "material": 0}
    write_gltf(path, [{"mesh": 0}], [primitive], [floats(TRIANGLE), INDICES], [material])
    (mesh,) = read_meshes(path)
    # trimesh keeps factors in bytes, so the half is off by up to a step.
    assert mesh.vertex_colors[0].tolist() == pytest.approx([0.5, 1, 0], abs=3e-3)


@pytest.mark.parametrize("has_material", [False, True])
def test_gltf_vertex_colors_are_linear_light(tmp_path, has_material):
    path = tmp_path / "grey.gltf"
    primitive = {"attributes": {"POSITION": 0, "COLOR_0": 2}, "indices": 1}
    materials = []
    if has_material:
        primitive["material"] = 0
        materials = [{"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 1, 1]}}]
    colors = floats(np.full((3, 3), 0.2140411))
    write_gltf(path, [{"mesh": 0}], [primitive], [floats(TRIANGLE), INDICES, colors], materials)
    (mesh,) = read_meshes(path)
    expected = [0.5, 0, 0.5] if has_material else [0.5, 0.5, 0.5]
    assert mesh.vertex_colors[1].tolist() == pytest.approx(expected, abs=3e-3)


def test_gltf_texture_is_multiplied_by_its_factor_in_linear_light(tmp_path):
    path = tmp_path / "half.gltf"
    Image.new("RGB", (4, 4), (255, 128, 0)).save(tmp_path / "a.png")
    material = {
        "pbrMetallicRoughness": {
            "baseColorFactor": [0.5, 0.5, 0.5, 1],
            "baseColorTexture": {"index": 0},
        }
    }
    uvs = floats([[0, 0], [1, 0], [0, 1]])
    primitive = {"attributes": {"POSITION": 0, "TEXCOORD_0": 2}, "indices": 1, "material": 0}
    arrays = [floats(TRIANGLE), INDICES, uvs]
    write_gltf(path, [{"mesh": 0}], [primitive], arrays, [material], ["a.png"])
    (mesh,) = read_meshes(path)
    # One half in linear light is .735 in sRGB; that of sRGB 128/255 (linear .2159) is .3642.
    assert mesh.texture[0, 0].tolist() == pytest.approx([0.7354, 0.3642, 0], abs=4e-3)
    assert mesh.uvs.tolist() == [[0, 0], [1, 0], [0, 1]]  # glTF's origin is ours


def test_obj_with_two_materials_becomes_two_meshes(tmp_path):
    (tmp_path / "a.mtl").write_text(
        "newmtl red\nKd 1 0 0\nnewmtl picture\nKd 1 1 1\nmap_Kd a.png\n"
    )
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0] = (0, 255, 0)  # green above, blue below
    picture[1] = (0, 0, 255)
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\n"
        "v -1 -.5 0\nv 0 -.5 0\nv 0 .5 0\nv -1 .5 0\n"
        "v 0 -.5 0\nv 1 -.5 0\nv 1 .5 0\nv 0 .5 0\n"
        "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
        "usemtl red\nf 1/1 2/2 3/3 4/4\nusemtl picture\nf 5/1 6/2 7/3 8/4\n"
    )
    meshes = read_meshes(tmp_path / "a.obj")
    assert len(meshes) == 2
    image = render_mesh(meshes, Cameras.orbit(1, 0, 2.5, width=64, height=64)).images[0]
    assert image[32, 22].tolist() == [1, 0, 0]
    assert image[24, 42].argmax() == 1  # OBJ's vt 1 is the picture's top
    assert image[40, 42].argmax() == 2


def test_ply_face_colors(tmp_path):
    box = trimesh.creation.box()
    box.visual.face_colors = np.arange(12)[:, None].repeat(4, 1) * 20
    box.export(tmp_path / "box.ply")
    (mesh,) = read_meshes(tmp_path / "box.ply")
    colors = mesh.vertex_colors[mesh.faces]
    expected = torch.arange(12)[:, None, None].expand(12, 3, 3) * 20 / 255
    torch.testing.assert_close(colors, expected)
    assert torch.equal(mesh.vertices[mesh.faces], torch.tensor(box.triangles).float())


def test_stl_triangles_are_joined(tmp_path):
    box = trimesh.creation.box()
    for name, kind in (("binary.stl", "stl"), ("text.stl", "stl_ascii")):
        box.export(tmp_path / name, file_type=kind)
        (mesh,) = read_meshes(tmp_path / name)
        assert len(mesh.vertices) == 8
        assert torch.equal(mesh.vertices[mesh.faces], torch.tensor(box.triangles).float())


def test_refuses_what_is_no_mesh(tmp_path):
    points = tmp_path / "points.ply"
    trimesh.PointCloud(np.random.default_rng(0).random((9, 3))).export(points)
    with pytest.raises(ValueError, match=r"points\.ply holds no triangles"):
        read_meshes(points)
    with pytest.raises(ValueError, match="does not exist"):
        read_meshes(tmp_path / "none.glb")
    with pytest.raises(ValueError, match=r"expected one of \.glb"):
        read_meshes(tmp_path / "photo.png")
    (tmp_path / "folder.glb").mkdir()
    with pytest.raises(ValueError, match="is no file"):
        read_meshes(tmp_path / "folder.glb")


@pytest.mark.parametrize("suffix", ["glb", "ply", "stl", "obj", "off", "gltf"])
def test_damaged_files_are_refused_by_name(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    if suffix == "gltf":
        primitive = {"attributes": {"POSITION": 0}, "indices": 1}
        write_gltf(whole, [{"mesh": 0}], [primitive], [floats(TRIANGLE), INDICES])
    else:
        trimesh.creation.icosphere(2).export(whole)
    data = whole.read_bytes()
    damaged = {
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(4000),
        "text": b"<html>404 Not Found</html>" * 20,
    }
    if suffix in ("glb", "ply", "stl", "gltf"):  # half a text file may be a whole mesh
        damaged["half"] = data[: len(data) // 2]
    for name, content in damaged.items():
        path = tmp_path / f"{name}.{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.{suffix}"):
            read_meshes(path)


def test_positions_that_are_not_numbers_are_refused(tmp_path):
    path = tmp_path / "nan.gltf"
    primitive = {"attributes": {"POSITION": 0}, "indices": 1}
    write_gltf(path, [{"mesh": 0}], [primitive], [floats(TRIANGLE * np.nan), INDICES])
    with pytest.raises(ValueError, match=r"nan\.gltf.*NaN"):
        read_meshes(path)
    indices = (np.array([0, 1, 7], "<u2").tobytes(), INDICES[1])
    write_gltf(path, [{"mesh": 0}], [primitive], [floats(TRIANGLE), indices])
    with pytest.raises(ValueError, match=r"nan\.gltf"):
        read_meshes(path)
