"""Frames of a video file, through PyAV (FFmpeg)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})


def count_frames(path: Path) -> int:
    """Decode the whole video once and count its frames.

    Raises ValueError for a file that is no video, can't be decoded, or is cut off: damaged data
    at the end, or fewer frames than the header promises.
    """
    with _opening(path) as container:
        stream = container.streams.video[0]
        promised = int(stream.frames)
        packets = decoded = 0
        end_seconds = 0.0
        for packet, frames in _decode(container, stream):
            if packet.size:
                packets += 1
                if packet.pts is not None:
                    end = (packet.pts + (packet.duration or 0)) * stream.time_base
                    end_seconds = max(end_seconds, float(end))
            damaged = packet.is_corrupt or any(frame.is_corrupt for frame in frames)
            decoded += len(frames)
            if damaged:
                raise ValueError(
                    f"the video {path} is damaged or cut off at frame {decoded}: export it again"
                )
        if packets < promised:
            raise ValueError(
                f"the video {path} is cut off: its header promises {promised} frames, "
                f"{packets} are there; copy or export it again"
            )
        missing = _missing_seconds(container, stream, end_seconds)
        if missing > 0:
            raise ValueError(
                f"the video {path} is cut off: its header promises {missing:.2f} seconds more "
                "than are there; copy or export it again"
            )
        return decoded


def read_video(path: Path, wanted: set[int]) -> Iterator[np.ndarray]:
    """The wanted frames in order: (H, W, 3) float32 in [0, 1], or (H, W, 4) with straight alpha.

    Raises ValueError like `count_frames`.
    """
    with _opening(path) as container:
        index = 0
        for _, frames in _decode(container, container.streams.video[0]):
            for frame in frames:
                if index in wanted:
                    yield _frame_to_array(frame)
                index += 1


@contextmanager
def _opening(path: Path) -> Iterator[Any]:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no video stream: give a video of the orbit")
            yield container
    # ValueErrors of our own pass; PyAV's InvalidDataError is both kinds.
    except av.FFmpegError as error:
        raise ValueError(
            f"the video {path} can't be decoded ({error.strerror}): "
            "it may be cut off or no video; export it again"
        ) from error


def _decode(container: Any, stream: Any) -> Iterator[tuple[Any, list[Any]]]:
    decoder = stream.codec_context
    # FFmpeg's own VP8 and VP9 decoders drop the alpha plane, libvpx keeps it.
    alpha_mode = {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode")
    if alpha_mode == "1" and decoder.name in ("vp8", "vp9"):
        library = {"vp8": "libvpx", "vp9": "libvpx-vp9"}[decoder.name]
        decoder = av.CodecContext.create(library, "r")
    for packet in container.demux(stream):
        # The last packet is empty: it flushes the decoder.
        yield packet, decoder.decode(packet if packet.size else None)


def _missing_seconds(container: Any, stream: Any, end_seconds: float) -> float:
    # WebM and Matroska promise a duration, not a count. Other streams may outlast the video.
    if stream.frames or len(container.streams) > 1 or not container.duration:
        return 0.0
    frame_seconds = 1 / float(stream.average_rate) if stream.average_rate else 0.1
    missing = container.duration / av.time_base - end_seconds
    return missing if missing > 1.5 * frame_seconds else 0.0


def _frame_to_array(frame: Any) -> np.ndarray:
    has_alpha = any(component.is_alpha for component in frame.format.components)
    array = frame.to_ndarray(format="rgba" if has_alpha else "rgb24")
    return array.astype(np.float32) / 255.0
