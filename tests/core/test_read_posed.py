import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d_core.cameras import Cameras, opengl_to_opencv, project
from hi3d_core.read import read_views

SIZE = 64
ANGLE = 0.8


def write_scene(folder, count=5, suffix=".png", **changes):
    """A transforms.json with an orbit's cameras; returns its data, already written."""
    cameras = Cameras.orbit(count, 25, 2.0, math.degrees(ANGLE), width=SIZE, height=SIZE)
    poses = opengl_to_opencv(cameras.camera_to_world.double())
    picture = np.zeros((SIZE, SIZE, 4), np.uint8)
    picture[20:40, 16:50] = (10, 200, 30, 255)
    (folder / "train").mkdir(exist_ok=True)
    frames = []
    for index, pose in enumerate(poses):
        Image.fromarray(picture).save(folder / f"train/r_{index}.png")
        frames.append(
            {"file_path": f"./train/r_{index}{suffix}", "transform_matrix": pose.tolist()}
        )
    data = {"camera_angle_x": ANGLE, "frames": frames, **changes}
    write(folder, data)
    return data


def write(folder, data):
    (folder / "transforms.json").write_text(json.dumps(data))


@pytest.mark.parametrize("suffix", [".png", ""])
def test_cameras_come_back_as_they_were_written(tmp_path, suffix):
    write_scene(tmp_path, suffix=suffix)
    views = read_views(tmp_path)
    truth = Cameras.orbit(5, 25, 2.0, math.degrees(ANGLE), width=SIZE, height=SIZE)
    assert torch.allclose(views.cameras.camera_to_world, truth.camera_to_world, atol=1e-6)
    assert torch.allclose(views.cameras.intrinsics, truth.intrinsics, rtol=1e-6)
    assert float(views.alphas.sum()) == 5 * 20 * 34
    again = read_views(tmp_path / "transforms.json")
    assert torch.equal(again.images, views.images)


def test_the_convention_is_nerfs(tmp_path):
    # Written down by hand: a camera on +Z whose OpenGL axes are the world's looks along -Z.
    # A point up and to the right of the origin is seen up and to the right.
    data = write_scene(tmp_path)
    data["frames"][0]["transform_matrix"] = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]
    write(tmp_path, data)
    pixels, depth = project(torch.tensor([[0.5, 0.25, 0.0]]), read_views(tmp_path).cameras)
    focal = SIZE / (2 * math.tan(ANGLE / 2))
    expected = torch.tensor([32 + focal * 0.5 / 4, 32 - focal * 0.25 / 4])
    assert torch.allclose(pixels[0, 0], expected, atol=1e-4)
    assert math.isclose(float(depth[0, 0]), 4, rel_tol=1e-6)


def test_intrinsics_of_a_frame_win_over_those_of_the_file(tmp_path):
    data = write_scene(tmp_path, fl_x=100.0, fl_y=110.0, cx=30.0, cy=33.0)
    data["frames"][2] |= {"fl_x": 70.0, "fl_y": 75.0, "cx": 31.0}
    write(tmp_path, data)
    intrinsics = read_views(tmp_path).cameras.intrinsics
    assert intrinsics[1].tolist() == [[100, 0, 30], [0, 110, 33], [0, 0, 1]]
    assert intrinsics[2].tolist() == [[70, 0, 31], [0, 75, 33], [0, 0, 1]]


def test_intrinsics_for_another_size_are_scaled(tmp_path):
    write_scene(tmp_path, fl_x=200.0, cx=60.0, cy=68.0, w=2 * SIZE, h=2 * SIZE)
    intrinsics = read_views(tmp_path).cameras.intrinsics
    assert intrinsics[0].tolist() == [[100, 0, 30], [0, 100, 34], [0, 0, 1]]


def test_thinning_keeps_pictures_and_cameras_together(tmp_path):
    write_scene(tmp_path, count=10)
    views = read_views(tmp_path, max_views=5)
    truth = Cameras.orbit(10, 25, 2.0, width=SIZE, height=SIZE).positions[::2]
    assert torch.allclose(views.cameras.positions, truth, atol=1e-6)


def singular(data, frame):
    frame["transform_matrix"] = np.diag([1.0, 1, 0, 1]).tolist()


def mirrored(data, frame):
    frame["transform_matrix"] = np.diag([1.0, 1, -1, 1]).tolist()


def not_a_number(data, frame):
    frame["transform_matrix"][0][0] = float("nan")


def ragged(data, frame):
    frame["transform_matrix"][1] = [1, 2]


CHANGES = {
    "missing picture": (lambda d, f: f.update(file_path="train/no.png"), r"no\.png does not exist"),
    "outside": (lambda d, f: f.update(file_path="../r.png"), "outside the file's folder"),
    "outside below": (lambda d, f: f.update(file_path="a/../../r.png"), "outside the file's"),
    "absolute": (lambda d, f: f.update(file_path="/etc/hosts"), "outside the file's folder"),
    "no file_path": (lambda d, f: f.pop("file_path"), "frame 2 needs a file_path"),
    "no matrix": (lambda d, f: f.pop("transform_matrix"), r"r_2\.png needs a transform_matrix"),
    "ragged matrix": (ragged, r"r_2\.png needs a transform_matrix"),
    "singular": (singular, r"r_2\.png has a singular pose"),
    "mirrored": (mirrored, r"r_2\.png has a mirrored pose"),
    "nan": (not_a_number, r"r_2\.png has a pose that is not finite"),
    "zero focal": (lambda d, f: f.update(fl_x=0.0), r"r_2\.png has focal lengths 0"),
    "text focal": (lambda d, f: f.update(fl_x="wide"), "expected a number"),
    "angle": (lambda d, f: d.update(camera_angle_x=3.5), "between 0 and pi"),
    "no focal": (lambda d, f: d.pop("camera_angle_x"), "no focal length"),
    "distortion": (lambda d, f: d.update(k1=0.1), r"lens distortion \(k1\)"),
    "fisheye": (lambda d, f: d.update(camera_model="OPENCV_FISHEYE"), "OPENCV_FISHEYE"),
    "size": (lambda d, f: d.update(w=100, h=50), "correct w and h"),
    "no frames": (lambda d, f: d.pop("frames"), 'needs a list "frames"'),
    "empty": (lambda d, f: d.update(frames=[]), "at least 4 views"),
    "three": (lambda d, f: d.update(frames=d["frames"][:3]), "at least 4 views"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_bad_files(tmp_path, name):
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "r.png")
    scene = tmp_path / "scene"
    scene.mkdir()
    data = write_scene(scene)
    change, message = CHANGES[name]
    change(data, data["frames"][2])
    write(scene, data)
    with pytest.raises(ValueError, match=message):
        read_views(scene)


def test_invalid_json_and_a_missing_file(tmp_path):
    (tmp_path / "transforms.json").write_text('{"frames": [')
    with pytest.raises(ValueError, match="not valid JSON"):
        read_views(tmp_path)
    with pytest.raises(ValueError, match=r"other\.json does not exist"):
        read_views(tmp_path / "other.json")


def test_posed_views_take_no_elevation(tmp_path):
    write_scene(tmp_path)
    with pytest.raises(ValueError, match="leave out the elevation"):
        read_views(tmp_path, elevation_degrees=10)


def test_rendered_views_fit_their_cameras():
    """The mesh's corners fall on the object in every picture, so that poses and pictures agree."""
    trimesh = pytest.importorskip("trimesh")
    folder = Path(__file__).parents[3] / "shared" / "eval" / "scopia_cat"
    if not folder.is_dir():
        pytest.skip("needs the evaluation objects (eval/scopia_cat) of the data folder")
    views = read_views(folder)
    points = torch.from_numpy(trimesh.load(folder / "gt.glb", force="mesh").vertices).float()
    pixels, _ = project(points, views.cameras)
    rows, columns = pixels[..., 1].long(), pixels[..., 0].long()
    # A corner on the outline may round to the pixel beside it.
    near = torch.nn.functional.max_pool2d(views.alphas, 3, stride=1, padding=1) > 0
    on_object = torch.stack([m[r, c] for m, r, c in zip(near, rows, columns, strict=True)])
    assert bool(on_object.all())
