"""The nodes' own work, on stand-ins for the host; the library's is tested in tests/core."""

import importlib
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def parts(pack_on_a_stand_in):
    """Modules of the pack as the host loaded it, by their names below its root."""

    def get(name: str):
        return importlib.import_module(f"{pack_on_a_stand_in.__name__}.{name}")

    return get


@pytest.fixture
def folders(tmp_path, pack_on_a_stand_in):
    return tmp_path / "output", tmp_path / "input"


def _ball(cameras, radius=0.4):
    """IMAGE and MASK of a ball with bands of colour, seen from cameras of a square picture."""
    size = cameras.width
    rows, columns = torch.meshgrid(
        torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij"
    )
    images, masks = [], []
    for pose, k in zip(cameras.camera_to_world, cameras.intrinsics, strict=True):
        rays = torch.stack(
            [(columns - k[0, 2]) / k[0, 0], (rows - k[1, 2]) / k[1, 1], torch.ones(size, size)], -1
        )
        rays = torch.nn.functional.normalize(rays @ pose[:3, :3].T, dim=-1)
        eye = pose[:3, 3]
        along = -(rays @ eye)
        gap = radius**2 - ((eye + along[..., None] * rays) ** 2).sum(-1)
        points = eye + (along - gap.clamp(min=0).sqrt())[..., None] * rays
        color = 0.5 + 0.4 * torch.sin(14 * points)
        inside = gap > 0
        images.append(torch.where(inside[..., None], color, torch.ones(3)))
        masks.append(inside.float())
    return torch.stack(images), torch.stack(masks)


def _cameras(node, **settings):
    wanted = {
        **{"count": 8, "elevation": 10.0, "radius": 1.5, "fov": 49.134},
        **{"direction": "counter-clockwise", "start_azimuth": 0.0},
        **settings,
    }
    return node["Hi3DOrbitCameras"].execute(**wanted).args[0]


def test_orbit_cameras_are_the_librarys(node, parts):
    cameras = _cameras(node, count=5, start_azimuth=30.0)
    expected = parts("hi3d_core.cameras").Cameras.orbit(5, 10.0, start_azimuth_degrees=30.0)
    assert torch.allclose(cameras.camera_to_world, expected.camera_to_world, atol=1e-6)
    assert torch.allclose(cameras.intrinsics, expected.intrinsics)
    back = _cameras(node, count=4, direction="clockwise")
    ahead = _cameras(node, count=4)
    assert torch.allclose(back.positions[1], ahead.positions[3], atol=1e-6)
    assert back.positions[1, 0] < -1  # to the object's right, which is the viewer's left


def test_a_viewers_camera_looks_where_it_says(node):
    info = {
        "position": {"x": 2.0, "y": 1.0, "z": 0.0},
        "target": {"x": 0.0, "y": 1.0, "z": 0.0},
        **{"fov": 40.0, "zoom": 1.0, "cameraType": "perspective"},
    }
    turned = {**info, "quaternion": {"x": 0.0, "y": 0.5**0.5, "z": 0.0, "w": 0.5**0.5}}
    for given in (info, [turned]):
        cameras = _cameras(node, camera_info=given)
        assert torch.allclose(cameras.forwards, torch.tensor([[-1.0, 0, 0]]), atol=1e-6)
        assert torch.allclose(cameras.positions, torch.tensor([[2.0, 1, 0]]))
        down = cameras.camera_to_world[0, :3, 1]
        assert torch.allclose(down, torch.tensor([0.0, -1, 0]), atol=1e-6)
        tangent = np.tan(np.radians(20))
        assert float(cameras.intrinsics[0, 1, 1]) == pytest.approx(256 / tangent, rel=1e-5)
    zoomed = _cameras(node, camera_info={**info, "zoom": 2.0})
    assert float(zoomed.intrinsics[0, 0, 0]) == pytest.approx(512 / tangent, rel=1e-5)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ([], "no camera"),
        ({"cameraType": "orthographic"}, "orthographic"),
        ({"position": {"x": 1}, "target": {"x": 1}}, "sits on its target"),
        ({"position": {"x": 1}, "quaternion": {"x": 0, "y": 0, "z": 0, "w": 0}}, "length 0"),
    ],
)
def test_a_viewers_camera_that_sees_nothing_is_refused(node, info, message):
    with pytest.raises(ValueError, match=message):
        _cameras(node, camera_info=info)


def test_cameras_of_a_transforms_file(node, folders):
    _, given = folders
    Image.new("RGB", (64, 48)).save(given / "a.png")
    frame = {"file_path": "a.png", "transform_matrix": np.eye(4).tolist()}
    (given / "transforms.json").write_text(json.dumps({"camera_angle_x": 1.0, "frames": [frame]}))
    cameras = _cameras(node, transforms="transforms.json")
    assert (cameras.width, cameras.height, len(cameras)) == (64, 48, 1)
    assert torch.allclose(cameras.forwards, torch.tensor([[0.0, 0, -1]]))
    finger = node["Hi3DOrbitCameras"].fingerprint_inputs
    before = finger(transforms="transforms.json", count=3)
    assert before == finger(transforms="transforms.json", count=3) != finger(transforms="")
    (given / "transforms.json").write_text(json.dumps({"camera_angle_x": 0.9, "frames": [frame]}))
    assert finger(transforms="transforms.json") != before
    with pytest.raises(ValueError, match="both transforms and camera_info"):
        _cameras(node, transforms="transforms.json", camera_info=[{}])
    with pytest.raises(ValueError, match="does not exist"):
        _cameras(node, transforms="gone.json")


def test_a_wide_picture_keeps_an_orbits_vertical_field_of_view(node, parts):
    cameras = _cameras(node)
    wide = parts("nodes.comfy_types").cameras_for(cameras, 300, 200)
    assert (wide.width, wide.height) == (300, 200)
    assert torch.allclose(wide.intrinsics[:, 0, 0], wide.intrinsics[:, 1, 1])
    assert float(wide.intrinsics[0, 1, 1]) == pytest.approx(
        float(cameras.intrinsics[0, 1, 1]) * 200 / 512
    )
    assert wide.intrinsics[0, 0, 2] == 150 and wide.intrinsics[0, 1, 2] == 100
    with pytest.raises(ValueError, match="uncropped"):
        parts("nodes.comfy_types").cameras_for(wide, 200, 200)


def test_prepare_image_frames_a_picture_or_keeps_the_frames(node):
    cameras = _cameras(node, count=3)
    image, mask = _ball(cameras.resized(96, 96))
    colored = torch.where(mask[..., None] > 0, image, torch.tensor([0.1, 0.5, 0.2]))
    settings = {"size": 128, "foreground_ratio": 0.5}
    square, alpha = (
        node["Hi3DPrepareImage"].execute(colored, framing="square", mask=mask, **settings).args
    )
    assert square.shape == (3, 128, 128, 3) and alpha.shape == (3, 128, 128)
    rows = alpha[0].amax(dim=1) > 0.5
    assert 62 <= int(rows.sum()) <= 66
    kept, found = node["Hi3DPrepareImage"].execute(colored, framing="keep", **settings).args
    assert kept.shape == image.shape
    assert (kept[:, 0, 0] == 1).all()
    assert float((found - mask).abs().mean()) < 0.01
    with pytest.raises(ValueError, match="2 masks and IMAGE 3 pictures"):
        node["Hi3DPrepareImage"].execute(colored, framing="keep", mask=mask[:2], **settings)


@pytest.fixture
def quick(parts, monkeypatch):
    """The mesher with a quality that takes seconds."""
    pipeline = parts("hi3d_core.pipeline")
    surface = pipeline.SurfaceConfig(
        levels=(pipeline.Level(32, 96, 25),), rays=8192, cavity_rounds=0
    )
    config = replace(pipeline.ReconstructConfig(), face_budget=2000, surface=surface)
    monkeypatch.setitem(pipeline.QUALITIES, "preview", config)
    return {
        **{"quality": "preview", "face_budget": 0, "texture_size": 128},
        **{"align": True, "refine_cameras": False, "seed": 0},
    }


def test_views_become_a_textured_mesh_that_renders_and_exports(node, parts, folders, quick):
    cameras = _cameras(node)
    image, mask = _ball(cameras.resized(96, 96))
    with torch.inference_mode():  # as the host runs
        before = image.clone()
        mesh, report = node["Hi3DNeusMesher"].execute(image, cameras, mask=mask, **quick).args
        drawn = node["Hi3DMeshRenderer"].execute(mesh, cameras, 96, "unlit").args
        again = (
            node["Hi3DTextureBaker"].execute(mesh, image, cameras, 64, True, 1.0, mask=mask).args[0]
        )
        path = node["Hi3DGlbExporter"].execute(mesh, "me & you/größe 🦊", "GLB").args
    assert torch.equal(image, before)
    assert mesh.vertices.shape[0] == 1 and mesh.texture.shape == (1, 128, 128, 3)
    assert "triangles" in report and "texture 128 x 128" in report
    pictures, masks, depth, normals = drawn
    assert float((masks - mask).abs().mean()) < 0.01
    both = (masks > 0.99) & (mask > 0.99)
    assert float((pictures - image).abs()[both].mean()) < 0.05
    middle = 48
    assert float(depth[0, middle, middle, 0]) > 0.95  # the front is near, the rim far
    assert 0.1 < float(depth[0, middle, 21, 0]) < 0.75
    assert float(depth[0, 2, 2, 0]) == 0
    assert float(normals[0, middle, middle, 2]) > 0.9  # the front's normal points to +Z
    assert again.texture.shape == (1, 64, 64, 3)
    assert torch.equal(again.uvs, mesh.uvs)
    file = folders[0] / path[0]
    assert path[0] == "me & you/größe 🦊_00001_.glb" and file.read_bytes()[:4] == b"glTF"
    if len(path) > 1:
        assert path[1].source == str(file) and path[1].format == "glb"
    second = node["Hi3DGlbExporter"].execute(mesh, "me & you/größe 🦊", "GLB").args[0]
    assert second == "me & you/größe 🦊_00002_.glb"
    assert sys.modules["comfy.model_management"].emptied >= 4
    assert not [each for each in folders[0].rglob("*") if each.name.startswith(".")]


def test_the_cancel_button_stops_the_mesher(node, quick):
    cameras = _cameras(node)
    image, mask = _ball(cameras.resized(96, 96))
    host, bar = sys.modules["comfy.model_management"], sys.modules["comfy.utils"]
    steps = []

    class Cancelling(bar.ProgressBar):
        def update_absolute(self, value, total=None, preview=None):
            steps.append(value)
            host.cancelled = len(steps) >= 6

    bar.ProgressBar = Cancelling
    with pytest.raises(Exception) as raised:
        node["Hi3DNeusMesher"].execute(image, cameras, mask=mask, **quick)
    assert type(raised.value).__name__ == "Interrupted"
    assert len(steps) == 6
    assert host.emptied == 1


def test_wires_that_do_not_belong_together_are_refused(node, quick):
    cameras = _cameras(node)
    image, mask = _ball(cameras.resized(64, 64))
    mesher = node["Hi3DNeusMesher"]
    with pytest.raises(ValueError, match="7 in IMAGE, 8 in CAMERAS"):
        mesher.execute(image[:7], cameras, **quick)
    with pytest.raises(ValueError, match="2 pictures, expected one"):
        mesher.execute(image, cameras, mask=mask, reference_image=image[:2], **quick)


def test_a_mask_of_another_size_is_resized_and_said(node, parts, caplog):
    cameras = _cameras(node)
    image, _ = _ball(cameras.resized(64, 64))
    _, fine = _ball(cameras.resized(128, 128))
    with caplog.at_level("INFO"):
        views = parts("nodes.comfy_types").to_orbit_views(image, fine, cameras)
    assert "128 x 128" in caplog.text and "64 x 64" in caplog.text
    expected = torch.nn.functional.avg_pool2d(fine, 2)
    assert torch.allclose(views.alphas, expected)


@pytest.mark.parametrize("prefix", ["../mesh", "/tmp/mesh", "a/../../mesh"])
def test_a_prefix_that_climbs_out_is_refused(node, parts, folders, prefix):
    mesh = parts("nodes.comfy_types").from_mesh(
        parts("hi3d_core.datatypes").Mesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]]))
    )
    with pytest.raises(ValueError, match="output folder"):
        node["Hi3DGlbExporter"].execute(mesh, prefix, "GLB")


@pytest.mark.parametrize("format", ["GLB", "OBJ", "PLY", "STL"])
def test_every_format_is_written(node, parts, folders, format):
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    mesh = parts("hi3d_core.datatypes").Mesh(corners, torch.tensor([[0, 1, 2]]))
    host_mesh = parts("nodes.comfy_types").from_mesh(mesh)
    name = node["Hi3DGlbExporter"].execute(host_mesh, "x", format).args[0]
    assert name == f"x_00001_.{format.lower()}"
    (found,) = parts("hi3d_core.read.mesh_file").read_meshes(folders[0] / name)
    assert len(found.faces) == 1
    assert float(found.vertices.max()) == 1


def test_a_splat_draws_the_views_between(node, parts):
    cameras = _cameras(node)
    image, mask = _ball(cameras.resized(96, 96))
    with torch.inference_mode():
        images, masks, poses, splat = (
            node["Hi3DGaussianSplatInterpolator"]
            .execute(image, cameras, between=8, steps=120, count=1500, seed=0, mask=mask)
            .args
        )
    assert images.shape == (16, 96, 96, 3) and masks.shape == (16, 96, 96) and len(poses) == 16
    assert torch.equal(images[:8], image) and torch.equal(masks[:8], mask)
    assert torch.allclose(poses.camera_to_world[:8], cameras.camera_to_world)
    between = _cameras(node, count=8, start_azimuth=22.5).resized(96, 96)
    expected, expected_masks = _ball(between)
    order = [int((between.positions - each).norm(dim=1).argmin()) for each in poses.positions[8:]]
    assert sorted(order) == list(range(8))
    assert float((masks[8:] - expected_masks[order]).abs().mean()) < 0.01
    error = (images[8:] - expected[order]).square().mean()
    assert float(-10 * error.log10()) > 24
    assert splat.positions.shape == (1, 1500, 3)
    assert float(splat.positions[0].norm(dim=1).median()) == pytest.approx(0.4, abs=0.03)


def test_drawn_views_are_told_from_seen_ones(node, parts, quick, monkeypatch):
    cameras = _cameras(node)
    image, mask = _ball(cameras.resized(96, 96))
    given = (
        node["Hi3DGaussianSplatInterpolator"]
        .execute(image, cameras, between=8, steps=60, count=800, seed=0, mask=mask)
        .args
    )
    found = {}

    def spied(views, config, *, hints, **others):
        found.update(views=views, between=hints.between)
        raise KeyboardInterrupt

    monkeypatch.setattr(parts("hi3d_core.pipeline"), "reconstruct", spied)
    with pytest.raises(KeyboardInterrupt):
        node["Hi3DNeusMesher"].execute(given[0], given[2], mask=given[1], **quick)
    assert len(found["views"]) == len(found["between"]) == 8
    assert torch.equal(found["between"].images, given[0][8:])
    assert torch.allclose(
        found["between"].cameras.camera_to_world, given[2].camera_to_world[8:], atol=1e-6
    )
    # Chained, the splat is fitted to what was seen alone.
    again = (
        node["Hi3DGaussianSplatInterpolator"]
        .execute(given[0], given[2], between=0, steps=1, count=800, seed=0, mask=given[1])
        .args
    )
    assert torch.equal(again[0], image) and len(again[2]) == 8


def test_normals_and_depth_reach_the_fit_in_the_world(node, parts, quick, monkeypatch):
    cameras = _cameras(node)
    image, mask = _ball(cameras.resized(96, 96))
    # What an estimator gives for the ball: in its middle the normal points to the camera.
    pictures = torch.full((8, 96, 96, 3), 0.5)
    pictures[..., 2] = 1.0
    pictures[0, 0, 0] = torch.tensor([0.5, 1.0, 0.5])  # up
    pictures[0, 0, 1] = torch.tensor([1.0, 0.5, 0.5])  # to the right
    found = []

    def spied(views, config, *, hints, **others):
        found.append(hints)
        raise KeyboardInterrupt

    monkeypatch.setattr(parts("hi3d_core.pipeline"), "reconstruct", spied)
    depth = torch.rand(8, 96, 96)
    with pytest.raises(KeyboardInterrupt):
        node["Hi3DNeusMesher"].execute(
            image, cameras, mask=mask, depth=depth, normals=pictures, **quick
        )
    hints = found[0]
    assert torch.allclose(hints.normals[:, 48, 48], -cameras.forwards, atol=1e-5)
    # Camera 0 stands before the front, ten degrees up: right is +X, up is nearly +Y.
    assert torch.allclose(hints.normals[0, 0, 1], torch.tensor([1.0, 0, 0]), atol=1e-5)
    assert float(hints.normals[0, 0, 0, 1]) == pytest.approx(0.985, abs=1e-3)
    assert torch.allclose(hints.inverse_depths, depth, atol=1e-3)  # stretched to 0 to 1
    with pytest.raises(ValueError, match="7 pictures for 8 views"):
        node["Hi3DNeusMesher"].execute(image, cameras, mask=mask, normals=pictures[:7], **quick)


def test_fits_show_the_orbit_turning(node, quick):
    cameras = _cameras(node)
    image, mask = _ball(cameras.resized(96, 96))
    bar, shown = sys.modules["comfy.utils"], []

    class Watching(bar.ProgressBar):
        def update_absolute(self, value, total=None, preview=None):
            if preview is not None:
                shown.append(np.asarray(preview[1], np.float32) / 255)

    bar.ProgressBar = Watching
    node["Hi3DNeusMesher"].execute(image, cameras, mask=mask, **quick)
    of_mesh = len(shown)
    node["Hi3DGaussianSplatInterpolator"].execute(
        image, cameras, between=0, steps=60, count=800, seed=0, mask=mask
    )
    assert of_mesh >= 2 and len(shown) - of_mesh == 3
    for picture, view in ((shown[of_mesh - 1], of_mesh - 1), (shown[-1], 2)):
        assert picture.shape == (256, 256, 3)
        small = torch.nn.functional.interpolate(
            torch.from_numpy(picture).movedim(-1, 0)[None], (96, 96), mode="area"
        )[0].movedim(0, -1)
        off = (image - small).square().mean(dim=(1, 2, 3))
        assert int(off.argmin()) == view  # each turn from the next camera


def test_a_glb_keeps_its_workflow(node, parts, folders):
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    mesh = parts("hi3d_core.datatypes").Mesh(corners, torch.tensor([[0, 1, 2]]))
    host_mesh = parts("nodes.comfy_types").from_mesh(mesh)
    exporter, arguments = node["Hi3DGlbExporter"], sys.modules["comfy.cli_args"].args
    exporter.hidden.prompt = {"1": {"class_type": "Größe"}}
    exporter.hidden.extra_pnginfo = {"workflow": {"nodes": []}}

    def extras(**settings) -> dict:
        (name,) = exporter.execute(host_mesh, "x", "GLB", **settings).args[:1]
        data = (folders[0] / name).read_bytes()
        length = int.from_bytes(data[12:16], "little")
        return json.loads(data[20 : 20 + length])["asset"].get("extras", {})

    kept = extras()
    assert json.loads(kept["prompt"]) == exporter.hidden.prompt
    assert json.loads(kept["workflow"]) == {"nodes": []}
    assert extras(embed_workflow=False) == {}
    arguments.disable_metadata = True
    assert extras() == {}


def test_one_node_does_it_all(node, parts, folders, quick, monkeypatch):
    cameras = parts("hi3d_core.cameras").Cameras.orbit(16, 10.0, width=64, height=64)
    coarse, _ = _ball(cameras)
    fine, _ = _ball(cameras.resized(128, 128))
    whole, asked = parts("nodes.image_to_3d"), []

    def painted(model, picture, elevation, config, seed):
        asked.append((picture.shape, elevation, config.size, seed))
        return coarse

    def repainted(model, frames, picture, elevation, config, seed):
        asked.append((picture.shape, elevation, config.size, seed, frames is coarse))
        return fine

    monkeypatch.setattr(whole, "paint_orbit", painted)
    monkeypatch.setattr(whole, "repaint_orbit", repainted)
    config = replace(
        parts("hi3d_core.pipeline").QUALITIES["preview"],
        splat=parts("hi3d_core.splat.fit").SplatConfig(count=800, size=64, iterations=30),
        texture=replace(parts("hi3d_core.texture").TextureConfig(), size=128),
    )
    monkeypatch.setitem(parts("hi3d_core.pipeline").QUALITIES, "preview", config)
    model = node["Hi3DLoader"].execute("auto", "auto", "auto", "auto").args[0]
    monkeypatch.setattr(parts("hi3d_core.weights.find"), "BUNDLED_FOLDER", folders[0] / "none")
    settings = {
        **{"elevation": 10.0, "size": 64, "refine": True, "quality": "preview", "seed": 7},
        "filename_prefix": "hi3d/one",
    }
    with pytest.raises(ValueError, match=r"first_stage\.pt(.|\n)*second_stage\.pt"):
        node["Hi3DImageTo3D"].execute(model, coarse[:1], **settings)
    assert not asked
    monkeypatch.setattr(type(model), "require", lambda self, *stages: None)
    official = parts("hi3d_core.model_defaults").OFFICIAL
    monkeypatch.setattr(
        type(model), "stage", lambda self, stage: SimpleNamespace(defaults=official[stage])
    )
    with pytest.raises(ValueError, match="2 pictures, expected one"):
        node["Hi3DImageTo3D"].execute(model, coarse[:2], **settings)
    with torch.inference_mode():
        mesh, splat, image, path = node["Hi3DImageTo3D"].execute(model, coarse[:1], **settings).args
    assert asked == [((64, 64, 3), 10.0, 64, 7), ((128, 128, 3), 10.0, 128, 7, True)]
    assert image.shape == (16, 128, 128, 3)
    assert float((image - fine).abs().mean()) < 0.01
    assert path == "hi3d/one_00001_.glb" and (folders[0] / path).read_bytes()[:4] == b"glTF"
    side = mesh.vertices[0][mesh.vertices[0][:, 1].abs() < 0.25]
    assert float((side.norm(dim=1) - 0.4).abs().mean()) < 0.02
    assert float(splat.positions[0].norm(dim=1).median()) == pytest.approx(0.4, abs=0.03)
    node["Hi3DImageTo3D"].execute(model, coarse[:1], **{**settings, "refine": False})
    assert len(asked) == 3
    # Left to the model, each stage has the size that it was trained at.
    node["Hi3DImageTo3D"].execute(model, coarse[:1], **{**settings, "size": 0})
    assert [call[2] for call in asked[3:]] == [512, 1024]


def test_views_are_loaded_with_their_cameras(node, parts, folders):
    cameras = _cameras(node, count=6).resized(64, 64)
    image, mask = _ball(cameras)
    folder = folders[1] / "photos é"
    folder.mkdir()
    poses = parts("hi3d_core.cameras").opengl_to_opencv(cameras.camera_to_world)
    frames = []
    for index in (4, 2, 0, 1, 3, 5):  # the file's order, not that of the names
        rgba = torch.cat([image[index], mask[index, ..., None]], dim=-1)
        Image.fromarray((rgba * 255).round().byte().numpy()).save(folder / f"{index}.png")
        frames.append({"file_path": f"{index}.png", "transform_matrix": poses[index].tolist()})
    angle = 2 * float(torch.atan(32 / cameras.intrinsics[0, 0, 0]))
    file = folder / "transforms.json"
    file.write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    load = node["Hi3DLoadViews"]
    settings = {"elevation": 10.0, "max_views": 64, "max_size": 1024}
    order = [4, 2, 0, 1, 3, 5]
    for path in ("photos é", "photos é/transforms.json", str(folder)):
        pictures, masks, found = load.execute(path, **settings).args
        assert torch.allclose(masks, mask[order], atol=0.01)
        assert float((pictures - image[order]).abs().mean()) < 0.01
        assert torch.allclose(found.camera_to_world, cameras.camera_to_world[order], atol=1e-5)
    before = load.fingerprint_inputs("photos é", **settings)
    assert before == load.fingerprint_inputs("photos é", **settings)
    file.unlink()
    assert before != load.fingerprint_inputs("photos é", **settings)
    # Without a transforms.json: an orbit, by file name.
    pictures, masks, found = load.execute("photos é", **settings).args
    assert torch.allclose(masks, mask, atol=0.01)
    assert torch.allclose(found.positions, cameras.positions, atol=1e-4)
    with pytest.raises(ValueError, match="input folder"):
        load.execute("nothing", **settings)


@pytest.mark.parametrize("name", ["Hi3DNeusMesher", "Hi3DGlbExporter"])
def test_a_choice_that_is_none_is_refused(node, parts, quick, name):
    cameras = _cameras(node)
    image, mask = _ball(cameras.resized(64, 64))
    mesh = parts("nodes.comfy_types").from_mesh(
        parts("hi3d_core.datatypes").Mesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]]))
    )
    with pytest.raises(ValueError, match="'best', expected one of"):
        if name == "Hi3DNeusMesher":
            node[name].execute(image, cameras, mask=mask, **{**quick, "quality": "best"})
        else:
            node[name].execute(mesh, "x", "best")
