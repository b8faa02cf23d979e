"""Videos, decoded again: size, count, order and colours."""

import av
import numpy as np
import pytest
import torch
from PIL import Image

from hi3d_core.export.video import write_video


def frames(count=6, height=48, width=64) -> torch.Tensor:
    """A bright square that wanders over a colour gradient."""
    images = torch.zeros(count, height, width, 3)
    images[..., 0] = torch.linspace(0, 1, width)
    images[..., 1] = torch.linspace(0, 1, height)[:, None]
    for index in range(count):
        images[index, 10:30, 8 * index : 8 * index + 16] = torch.tensor([1.0, 1.0, 1.0])
    return images


def decode(path) -> np.ndarray:
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    with Image.open(path) as picture:
        pages = []
        for index in range(picture.n_frames):
            picture.seek(index)
            pages.append(np.asarray(picture.convert("RGB")))
        return np.stack(pages)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_frames_come_back_in_order_and_colour(tmp_path, suffix):
    images = frames()
    path = tmp_path / f"a{suffix}"
    write_video(images, path, fps=10)
    back = decode(path) / 255
    assert back.shape == images.shape
    errors = [[float(((a - b.numpy()) ** 2).mean()) for b in images] for a in back]
    assert np.argmin(errors, axis=1).tolist() == list(range(6))
    assert -10 * np.log10(np.max(np.diag(errors))) > 30


def test_mp4_pads_odd_sizes_and_keeps_time(tmp_path):
    images = frames(height=47, width=63)
    write_video(iter(images), tmp_path / "odd.mp4", fps=12.5)
    back = decode(tmp_path / "odd.mp4")
    assert back.shape == (6, 48, 64, 3)
    with av.open(str(tmp_path / "odd.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == 12.5
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.name == "h264"


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_loop_at_their_speed(tmp_path, suffix):
    write_video(frames(), tmp_path / f"a{suffix}", fps=20)
    with Image.open(tmp_path / f"a{suffix}") as picture:
        picture.load()
        assert picture.info["loop"] == 0
        assert picture.info["duration"] == 50


@pytest.mark.parametrize(
    ("name", "images", "fps", "message"),
    [
        ("a.avi", frames(), 10, r"\.mp4, \.gif, \.webp"),
        ("a.mp4", frames()[:0], 10, "no pictures"),
        ("a.gif", frames()[:0], 10, "no pictures"),
        ("a.mp4", [frames()[0], frames()[0, :-2]], 10, "one size"),
        ("a.mp4", frames()[..., :2], 10, r"expected \(H, W, 3\)"),
        ("a.mp4", frames(), 0, "fps"),
        ("none/a.mp4", frames(), 10, "does not exist"),
    ],
)
def test_refuses_and_leaves_nothing(tmp_path, name, images, fps, message):
    with pytest.raises(ValueError, match=message):
        write_video(images, tmp_path / name, fps)
    assert list(tmp_path.iterdir()) == []
