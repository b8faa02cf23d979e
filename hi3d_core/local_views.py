"""Views as a fit wants them: in the object's own frame, and no larger than it can use."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn.functional import avg_pool2d

from .datatypes import OrbitViews
from .surface.hull import Placement


def in_local_frame(views: OrbitViews, placement: Placement) -> OrbitViews:
    """The views as seen in the placement's frame, where the object is about 1 across."""
    depths = None if views.depths is None else views.depths / placement.scale
    cameras = views.cameras.in_frame(placement.center, placement.scale)
    return replace(views, cameras=cameras, depths=depths)


def shrunk(views: OrbitViews, width: int) -> OrbitViews:
    """The views scaled down by a whole number to about `width` pixels; never up.

    Depths are dropped, as they can't be averaged.
    """
    factor = max(1, round(views.cameras.width / width))
    if factor == 1:
        return views
    small_width, small_height = views.cameras.width // factor, views.cameras.height // factor
    cut_width, cut_height = small_width * factor, small_height * factor

    def shrink(pictures: Tensor) -> Tensor:
        channels_first = pictures[:, None] if pictures.ndim == 3 else pictures.movedim(-1, 1)
        small = avg_pool2d(channels_first[..., :cut_height, :cut_width], factor)
        return small[:, 0] if pictures.ndim == 3 else small.movedim(1, -1).contiguous()

    # A rim of less than `factor` pixels may fall off on the right and below: cameras keep their
    # principal point in what is left.
    cameras = replace(views.cameras, width=cut_width, height=cut_height)
    return OrbitViews(
        shrink(views.images), shrink(views.alphas), cameras.resized(small_width, small_height)
    )
