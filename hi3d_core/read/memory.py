"""Refuse pictures that won't fit into memory, before allocating for them."""

from __future__ import annotations

from ..memory import available_bytes

# What reading, cutting out and reconstructing hold at their peak, in bytes a pixel: for each view
# (measured with 8 views of 4096 x 4096: 102 at the most, while the result is drawn beside them),
# and what keying one view works with.
_BYTES_PER_VIEW = 104
_BYTES_AT_WORK = 128


def check_memory(views: int, width: int, height: int, name: str) -> None:
    """Raise ValueError if `views` pictures of this size need more memory than is available.

    The message says how much is needed and there, and what to do.
    """
    needed = width * height * (views * _BYTES_PER_VIEW + _BYTES_AT_WORK)
    available = available_bytes()
    if needed > available:
        raise ValueError(
            f"{name}: {views} frames of {width} x {height} pixels need about "
            f"{needed / 2**30:.1f} GiB of memory, {available / 2**30:.1f} GiB are available: "
            "scale the frames down (max_size) or use fewer of them (max_views)"
        )
