"""How alike painted and true frames are.

Frame 0 is the picture that was given, so it does not count. All frames are compared at the truth's
size; smaller ones are enlarged as the refiner's input is. Scores are means over frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hi3d_core.export.checks import to_bytes
from hi3d_core.metrics import psnr, ssim
from hi3d_core.resize import resize_linear_8bit

from .perceptual import Perceptual


def image_scores(frames: Tensor, truth: Tensor, perceptual: Perceptual | None) -> dict[str, float]:
    """psnr in dB, ssim, and "perceptual" if there is a measure.

    frames: (F, s, s, 3), truth: (F, S, S, 3), both in [0, 1].
    Raises ValueError for another number of frames.
    """
    if len(frames) != len(truth):
        raise ValueError(f"there are {len(frames)} frames, expected {len(truth)}, as true ones")
    pairs = list(zip(resized(frames, truth.shape[1])[1:], truth[1:], strict=True))
    scores = {
        "psnr": sum(psnr(*pair) for pair in pairs) / len(pairs),
        "ssim": sum(ssim(*pair) for pair in pairs) / len(pairs),
    }
    if perceptual is not None:
        ours, true = (torch.stack(each) for each in zip(*pairs, strict=True))
        scores["perceptual"] = float(perceptual.distance(ours, true).mean())
    return scores


def resized(frames: Tensor, size: int) -> Tensor:
    """Frames (F, s, s, 3) at S pixels a side: enlarged linearly, or averaged down."""
    side = frames.shape[1]
    if side == size:
        return frames
    if side < size:
        pixels = [resize_linear_8bit(to_bytes(frame), size, size) for frame in frames]
        return torch.stack([torch.from_numpy(each) for each in pixels]).float() / 255
    planes = frames.permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(planes, (size, size), mode="area")
    return small.permute(0, 2, 3, 1).contiguous()
