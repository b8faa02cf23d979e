import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from hi3d_core.cameras import Cameras
from hi3d_core.read import frames as frames_module
from hi3d_core.read import memory, read_views
from hi3d_core.read.pictures import read_picture

SIZE = 64


def square_frames(count=6, alpha=False, size=SIZE, background=255):
    """uint8 frames of a coloured square; its brightness tells the frame's number."""
    frames = np.full((count, size, size, 4 if alpha else 3), background, np.uint8)
    if alpha:
        frames[..., 3] = 0
    quarter = size // 4
    for index, frame in enumerate(frames):
        frame[quarter:-quarter, quarter:-quarter, :3] = (200, 20 + 10 * index, 40)
        if alpha:
            frame[quarter:-quarter, quarter:-quarter, 3] = 255
    return frames


def frame_numbers(views):
    green = views.images[:, SIZE // 2, SIZE // 2, 1] * 255
    return [round(float(value) - 20) // 10 for value in green + 2]


def write_folder(folder, frames, name="{}.png"):
    folder.mkdir(exist_ok=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(index))
    return folder


def write_video(path, frames, codec="libx264", pixels="yuv444p", options=None):
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixels
        stream.options = {"crf": "10"}
        layout = "rgba" if frames.shape[3] == 4 else "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=layout)))
        container.mux(stream.encode())
    return path


def test_a_folder_is_read_in_natural_order_and_other_files_are_ignored(tmp_path):
    write_folder(tmp_path, square_frames(12), "frame_{}.png")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".hidden.png").write_bytes(b"no picture")
    views = read_views(tmp_path, elevation_degrees=20)
    assert frame_numbers(views) == list(range(12))
    expected = Cameras.orbit(12, 20, width=SIZE, height=SIZE)
    assert torch.equal(views.cameras.camera_to_world, expected.camera_to_world)
    assert torch.equal(views.cameras.intrinsics, expected.intrinsics)


def test_the_square_is_keyed_exactly(tmp_path):
    views = read_views(write_folder(tmp_path, square_frames()))
    truth = torch.zeros(SIZE, SIZE)
    truth[16:-16, 16:-16] = 1
    # Only the square's corners are rounded, by less than a pixel.
    assert float((views.alphas - truth).abs().mean()) < 1e-3


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_videos_give_the_frames_they_were_made_of(tmp_path, suffix):
    frames = square_frames(8)
    views = read_views(write_video(tmp_path / f"orbit.{suffix}", frames))
    assert len(views) == 8
    assert frame_numbers(views) == list(range(8))
    inside = views.images[:, 20:-20, 20:-20].numpy() * 255
    assert np.abs(inside - frames[:, 20:-20, 20:-20]).mean() < 3


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"), [("webm", "libvpx-vp9", "yuva420p"), ("mov", "qtrle", "argb")]
)
def test_the_alpha_plane_of_a_video_is_kept(tmp_path, suffix, codec, pixels):
    # Half of the square is transparent: keying its colours would find all of it.
    frames = square_frames(6, alpha=True)
    frames[:, :, SIZE // 2 :, 3] = 0
    views = read_views(write_video(tmp_path / f"a.{suffix}", frames, codec, pixels))
    truth = torch.from_numpy(frames[..., 3] / 255.0)
    assert float((views.alphas - truth).abs().mean()) < 0.01
    assert float(views.images[:, :, 40:].min()) > 0.98  # white, not what lies under the alpha


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animated_pictures(tmp_path, suffix):
    pictures = [Image.fromarray(frame) for frame in square_frames(6, alpha=True)]
    path = tmp_path / f"orbit.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {"disposal": 2} if suffix == "gif" else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, **options)
    views = read_views(path)
    assert frame_numbers(views) == list(range(6))
    truth = torch.zeros(SIZE, SIZE)
    truth[16:-16, 16:-16] = 1
    assert torch.equal(views.alphas, truth.expand(6, -1, -1))


def test_picture_kinds_agree(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = values / np.float32(255)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(values.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(values).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(grey).save(tmp_path / "float.tif")
    Image.fromarray(np.stack([values, 255 - values], 2), "LA").save(tmp_path / "la.png")
    for name in ("grey.png", "deep.png", "palette.png", "float.tif", "la.png"):
        picture = read_picture(tmp_path / name)
        assert np.abs(picture[..., :3] - grey[..., None]).max() < 1e-6, name
    assert np.abs(read_picture(tmp_path / "la.png")[..., 3] - (1 - grey)).max() < 1e-6


def test_exif_orientation_is_applied(tmp_path):
    picture = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    exif = picture.getexif()
    exif[0x0112] = 6  # stored lying: to be turned a quarter clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    turned = read_picture(tmp_path / "turned.png")[..., 0] * 255
    assert np.array_equal(np.round(turned), np.rot90(np.asarray(picture), -1))


def test_wide_frames_have_their_field_of_view_across_the_width(tmp_path):
    frames = np.concatenate([square_frames(), np.full((6, SIZE, SIZE, 3), 255, np.uint8)], axis=2)
    views = read_views(write_folder(tmp_path, frames), fov_degrees=60)
    assert views.images.shape == (6, SIZE, 2 * SIZE, 3)
    focal = views.cameras.intrinsics[0, 0, 0]
    assert math.isclose(2 * math.atan(SIZE / float(focal)), math.radians(60), rel_tol=1e-5)
    assert torch.equal(views.cameras.intrinsics[0, 0, 0], views.cameras.intrinsics[0, 1, 1])


def test_many_frames_are_thinned_evenly_and_keep_their_angles(tmp_path):
    write_folder(tmp_path, square_frames(20))
    views = read_views(tmp_path, max_views=8)
    kept = [0, 2, 5, 7, 10, 12, 15, 17]
    assert frame_numbers(views) == kept
    all_positions = Cameras.orbit(20, width=SIZE, height=SIZE).positions
    assert torch.equal(views.cameras.positions, all_positions[kept])


def test_a_closed_loop_loses_its_last_frame(tmp_path):
    frames = square_frames(9)
    frames[8] = frames[0]
    views = read_views(write_folder(tmp_path, frames))
    assert len(views) == 8
    assert torch.allclose(views.cameras.positions[4], torch.tensor([0.0, 0.0, -1.5]), atol=1e-5)


def test_scaling_down_keeps_the_rays_and_does_not_bleed(tmp_path):
    frames = square_frames(4, alpha=True, background=0)  # black where transparent
    frames[..., :3][frames[..., 3] == 255] = 255
    frames[:, 16:17, 16:-16, 3] = 128
    full = read_views(write_folder(tmp_path, frames))
    half = read_views(tmp_path, max_size=SIZE // 2)
    assert half.images.shape == (4, SIZE // 2, SIZE // 2, 3)
    assert float(half.images.min()) > 0.999  # a white thing over white: no trace of black
    area = full.alphas.sum() / 4
    assert torch.allclose(half.alphas.sum(), area, rtol=0.01)
    assert torch.allclose(half.cameras.intrinsics[:, :2] * 2, full.cameras.intrinsics[:, :2])


def test_too_large_frames_say_how_much_memory_they_want(tmp_path, monkeypatch):
    write_folder(tmp_path, square_frames())
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(ValueError, match=r"6 frames of 64 x 64 .* GiB .* available"):
        read_views(tmp_path)
    monkeypatch.setattr(memory, "available_bytes", lambda: 8 * 2**30)
    memory.check_memory(16, 1024, 1024, "orbit")
    with pytest.raises(ValueError, match=r"28\.0 GiB.*8\.0 GiB"):
        memory.check_memory(16, 4096, 4096, "orbit")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_frames(tmp_path, count):
    write_folder(tmp_path, square_frames(4)[:count])
    with pytest.raises(ValueError, match="no pictures" if count == 0 else "at least 4 views"):
        read_views(tmp_path)


def test_a_still_picture_is_one_frame(tmp_path):
    Image.fromarray(square_frames(1)[0]).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="only one frame"):
        read_views(tmp_path / "one.png")


def test_frames_of_different_size(tmp_path):
    write_folder(tmp_path, square_frames(5))
    Image.fromarray(square_frames(1, size=32)[0]).save(tmp_path / "3.png")
    with pytest.raises(ValueError, match=r"differ in size.*0\.png is 64 x 64, 3\.png is 32 x 32"):
        read_views(tmp_path)


def test_a_damaged_picture_is_named(tmp_path):
    write_folder(tmp_path, square_frames(5))
    path = tmp_path / "2.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"2\.png can't be read"):
        read_views(tmp_path)


def test_folders_without_pictures_and_paths_that_are_not(tmp_path):
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(ValueError, match="holds no pictures"):
        read_views(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        read_views(tmp_path / "nowhere.mp4")
    with pytest.raises(ValueError, match="unknown kind"):
        read_views(tmp_path / "readme.txt")


def test_what_is_no_video(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"not a video" * 1000)
    with pytest.raises(ValueError, match=r"bad\.mp4 can't be decoded"):
        read_views(tmp_path / "bad.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ValueError, match=r"empty\.mp4 can't be decoded"):
        read_views(tmp_path / "empty.mp4")


@pytest.mark.parametrize("faststart", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_cut_off_mp4(tmp_path, faststart, share):
    # With its table of contents first the file still opens, and promises frames it lacks.
    generator = np.random.default_rng(0)
    frames = square_frames(16)
    frames[:, 16:-16, 16:-16] = generator.integers(0, 255, (16, 32, 32, 3))
    options = {"movflags": "faststart"} if faststart else None
    path = write_video(tmp_path / "orbit.mp4", frames, options=options)
    assert len(read_views(path)) == 16
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"orbit\.mp4.*(can't be decoded|cut off)"):
        read_views(path)


def test_an_mp4_cut_between_two_frames(tmp_path):
    # What is there is whole: only the count in the header tells.
    frames = square_frames(12)
    path = write_video(tmp_path / "orbit.mp4", frames, options={"movflags": "faststart"})
    with av.open(str(path)) as container:
        ends = sorted(packet.pos + packet.size for packet in container.demux() if packet.size)
    path.write_bytes(path.read_bytes()[: ends[8]])
    with pytest.raises(ValueError, match="promises 12 frames, 9 are there"):
        read_views(path)


def test_a_cut_off_webm(tmp_path):
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 255, (16, SIZE, SIZE, 3)).astype(np.uint8)
    path = write_video(tmp_path / "orbit.webm", frames, "libvpx-vp9", "yuv420p")
    assert len(frames_module.open_frames(path)) == 16
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    with pytest.raises(ValueError, match=r"orbit\.webm.*(can't be decoded|cut off)"):
        frames_module.open_frames(path)


@pytest.mark.parametrize("elevation", [-91, 90.5, float("nan")])
def test_impossible_elevations(tmp_path, elevation):
    write_folder(tmp_path, square_frames())
    with pytest.raises(ValueError, match="expected -90 to 90"):
        read_views(tmp_path, elevation_degrees=elevation)


def test_transparent_frames(tmp_path):
    frames = square_frames(5, alpha=True)
    frames[3, ..., 3] = 0
    with pytest.raises(ValueError, match="view 3 is empty"):
        read_views(write_folder(tmp_path, frames))
    frames[..., 3] = 0
    with pytest.raises(ValueError, match="all 5 views is empty"):
        read_views(write_folder(tmp_path, frames))


def test_frames_without_an_object(tmp_path):
    with pytest.raises(ValueError, match="no object could be told from the background"):
        read_views(write_folder(tmp_path, np.full((5, SIZE, SIZE, 3), 255, np.uint8)))


class TestUserMasks:
    @pytest.fixture
    def orbit(self, tmp_path):
        return write_folder(tmp_path / "orbit", square_frames(5, alpha=True))

    @pytest.fixture
    def disks(self):
        y, x = np.mgrid[:SIZE, :SIZE]
        return np.stack([(x - 32) ** 2 + (y - 32) ** 2 < (8 + i) ** 2 for i in range(5)])

    def write(self, folder, masks, name="{}.png"):
        return write_folder(folder, (masks * 255).astype(np.uint8), name)

    def test_win_over_the_alpha_channel(self, tmp_path, orbit, disks):
        views = read_views(orbit, masks=self.write(tmp_path / "masks", disks))
        assert torch.equal(views.alphas, torch.from_numpy(disks).float())

    def test_are_matched_by_name_before_order(self, tmp_path, orbit, disks):
        folder = tmp_path / "masks"
        self.write(folder, disks, "{}.png")
        self.write(folder, disks[:2], "x{}.png")  # more masks than frames: names decide
        views = read_views(orbit, masks=folder)
        assert torch.equal(views.alphas, torch.from_numpy(disks).float())

    def test_are_matched_by_order_else(self, tmp_path, orbit, disks):
        folder = self.write(tmp_path / "masks", disks, "mask_{}.png")
        views = read_views(orbit, masks=folder)
        assert torch.equal(views.alphas, torch.from_numpy(disks).float())

    def test_may_be_a_video_of_another_size(self, tmp_path, orbit, disks):
        large = np.repeat((disks * 255).astype(np.uint8).repeat(2, 1).repeat(2, 2)[..., None], 3, 3)
        views = read_views(orbit, masks=write_video(tmp_path / "masks.mp4", large))
        error = (views.alphas - torch.from_numpy(disks).float()).abs().mean()
        assert float(error) < 0.02

    def test_number_and_shape_must_agree(self, tmp_path, orbit, disks):
        folder = self.write(tmp_path / "few", disks[:4], "mask_{}.png")
        with pytest.raises(ValueError, match="4 masks for 5 frames"):
            read_views(orbit, masks=folder)
        folder = self.write(tmp_path / "wide", disks[:, :32])
        with pytest.raises(ValueError, match="must have the shape of the frames"):
            read_views(orbit, masks=folder)
        with pytest.raises(ValueError, match="do not exist"):
            read_views(orbit, masks=tmp_path / "nowhere")

    def test_black_white_inverted_and_nan(self, tmp_path, orbit, disks):
        with pytest.raises(ValueError, match="empty"):
            read_views(orbit, masks=self.write(tmp_path / "black", disks * False))
        with pytest.raises(ValueError, match="full"):
            read_views(orbit, masks=self.write(tmp_path / "white", disks | True))
        with pytest.raises(ValueError, match="inverted"):
            read_views(orbit, masks=self.write(tmp_path / "inverted", ~disks))
        folder = tmp_path / "nan"
        folder.mkdir()
        for index, disk in enumerate(disks):
            mask = disk.astype(np.float32)
            mask[0, 0] = np.nan if index == 2 else 0
            Image.fromarray(mask).save(folder / f"{index}.tif")
        with pytest.raises(ValueError, match=r"view 2 holds 1 values that are NaN"):
            read_views(orbit, masks=folder)


def test_genuine_orbits_are_read_whole():
    folder = Path(__file__).parents[3] / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"needs the genuine orbits in {folder.name}/ of the data folder")
    views = read_views(folder / "orbit0.mp4", max_views=4)
    assert views.images.shape == (4, 512, 512, 3)
    assert 0.2 < float(views.alphas.mean()) < 0.36
