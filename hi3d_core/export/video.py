"""Pictures into a video file: mp4, gif or webp."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..atomic_file import check_writable, replacing
from .checks import to_bytes

VIDEO_SUFFIXES = (".mp4", ".gif", ".webp")
_CRF = "16"  # x264's constant quality, 0 (lossless) to 51; at 16 no loss is seen
# FFmpeg's numbers: its converter from RGB uses BT.601 and the short range, so the file says so.
_BT601, _SRGB_CURVE, _BT709_PRIMARIES, _SHORT_RANGE = 6, 13, 1, 1


def write_video(images: Iterable[Tensor], path: str | Path, fps: float) -> None:
    """Write pictures (H, W, 3), floats in [0, 1] and of one size, as a video that loops.

    images: a tensor (n, H, W, 3), or anything that yields pictures; they are taken one by one.
    The suffix chooses the format: .mp4 (H.264; odd sizes get a repeated last row or column),
    .gif or .webp. fps: pictures a second.

    Raises ValueError for another suffix, no picture, pictures of different size, an fps that is
    not positive or a place that can't be written.
    """
    path = Path(path)
    check_video_suffix(path)
    check_writable(path)
    if not 0 < fps <= 1000:
        raise ValueError(f"fps is {fps}, expected a number above 0, 1000 at most")
    with replacing(path) as temporary:
        if path.suffix.lower() == ".mp4":
            _write_mp4(_checked(images, path), temporary, fps)
        else:
            _write_animation(_checked(images, path), temporary, fps)


def check_video_suffix(path: str | Path) -> None:
    """Refuse a path whose suffix names no video format; ValueError lists those there are."""
    if Path(path).suffix.lower() not in VIDEO_SUFFIXES:
        raise ValueError(
            f"{path} does not end in a video format that can be written: "
            f"expected {', '.join(VIDEO_SUFFIXES)}"
        )


def _checked(images: Iterable[Tensor], path: Path) -> Iterable[np.ndarray]:
    first_shape: tuple[int, ...] | None = None
    for index, image in enumerate(images):
        shape = tuple(image.shape)
        if len(shape) != 3 or shape[2] != 3:
            raise ValueError(f"picture {index} for {path} is {shape}, expected (H, W, 3)")
        if first_shape is None:
            first_shape = shape
        if shape != first_shape:
            raise ValueError(
                f"picture {index} for {path} is {shape}, the first is {first_shape}: "
                "all pictures of a video must have one size"
            )
        yield to_bytes(image)
    if first_shape is None:
        raise ValueError(f"there are no pictures to write to {path}")


def _write_mp4(frames: Iterable[np.ndarray], path: Path, fps: float) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: Any = None
        for frame in frames:
            height, width = frame.shape[:2]
            # 4:2:0 halves the colour planes, so both sides must be even.
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if stream is None:
                rate = Fraction(fps).limit_denominator(1001)
                stream = container.add_stream("libx264", rate=rate, options={"crf": _CRF})
                stream.height, stream.width = even.shape[:2]
                stream.pix_fmt = "yuv420p"
                context = stream.codec_context
                context.colorspace, context.color_range = _BT601, _SHORT_RANGE
                context.color_trc, context.color_primaries = _SRGB_CURVE, _BT709_PRIMARIES
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _write_animation(frames: Iterable[np.ndarray], path: Path, fps: float) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    options: dict[str, Any] = {"quality": 92} if path.suffix.lower() == ".webp" else {}
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / fps),
        loop=0,
        **options,
    )
