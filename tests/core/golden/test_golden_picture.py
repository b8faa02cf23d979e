"""The input picture against the official preprocessing, bit for bit."""

import numpy as np
import torch
from PIL import Image

from hi3d_core.picture import cover_square, paste_on_white, prepare_picture, read_input_picture
from hi3d_core.resize import resize_linear_8bit

from .goldens import golden, need, settings


def to_network(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (..., H, W, 3) -> (..., 3, H, W) in [-1, 1] as the official code computes it."""
    scaled = torch.from_numpy(pixels).movedim(-1, -3).float().div(255)
    return (scaled - 0.5) * 2.0


def white_pixels() -> np.ndarray:
    return np.asarray(Image.open(need("images/white.png")))


def test_golden_cut_out_pasted_on_white():
    pixels = np.asarray(Image.open(need("images/rgba.png")))
    assert np.array_equal(paste_on_white(pixels[..., :3], pixels[..., 3]), white_pixels())


def test_golden_conditioning_frame_from_the_white_picture():
    size = settings()["image_px"]["stage1"]
    ours = to_network(cover_square(white_pixels(), size))
    assert torch.equal(ours, golden("stage1/outputs.safetensors", "frame0"))


def test_golden_conditioning_frame_from_the_cut_out():
    size = settings()["image_px"]["stage1"]
    picture, alpha = prepare_picture(*read_input_picture(need("images/rgba.png")), size=size)
    ours = to_network((picture * 255).round().byte().numpy())
    assert torch.equal(ours, golden("stage1/outputs.safetensors", "frame0"))
    assert alpha.shape == (size, size) and float(alpha.max()) > 0.9


def test_golden_coarse_frames_enlarged():
    size = settings()["image_px"]["stage2"]
    coarse = golden("stage2/inputs.safetensors", "coarse_frames").numpy()
    official = golden("stage2/outputs.safetensors", "frames")  # (3, 4, S, S)
    chosen = [0, 5, 10, 15]
    assert official.shape[1] == len(chosen)
    for position, frame in enumerate(chosen):
        pixels = white_pixels() if frame == 0 else coarse[frame]
        ours = to_network(resize_linear_8bit(pixels, size, size))
        assert torch.equal(ours, official[:, position]), f"frame {frame}"
