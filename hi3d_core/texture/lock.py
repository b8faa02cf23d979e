"""The reference picture's lock: where it sees the surface well it decides the colour alone.

The reference is one picture that is right by definition, the user's own, while the other views
were made up from it. A vote of its own would only be one among many and be blurred by theirs. So
it takes a share of the colour, 1 where it looks squarely at the surface and far from silhouettes
and depth edges, which falls smoothly to 0 towards both.

Letters: P points.
"""

from __future__ import annotations

import numpy as np

from .votes import eased

_GRAZING, _SQUARE = 0.25, 0.7  # cosines at which the share begins, and is full
_SURE = 0.8  # certainty from which the share is full


def lock_colors(
    colors: np.ndarray, certainties: np.ndarray, votes: np.ndarray, weight: float
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (P, 3) and certainties (P,) of the views once the reference has had its say.

    colors, certainties: the views' own, of `blend_votes`. votes: (P, 5) the reference's, of
    `collect_votes`. weight: in [0, 1], the share of the colour that it takes at best.
    """
    share = weight * locked_share(votes)
    seen = eased(certainties)
    by_views = (1 - share) * seen
    # What the views don't see is the reference's, however it looks at it.
    by_reference = share + (1 - share) * (1 - seen) * eased(votes[:, 4])
    total = by_views + by_reference
    part = np.divide(by_reference, total, out=np.zeros_like(total), where=total > 0)[:, None]
    mixed = (1 - part) * colors + part * votes[:, :3]
    return mixed.astype(np.float32), np.maximum(certainties, votes[:, 4])


def locked_share(votes: np.ndarray) -> np.ndarray:
    """(P,) in [0, 1] how far the reference alone decides, of its votes (P, 5)."""
    certainty = votes[:, 4]
    cosine = (votes[:, 3] / np.maximum(certainty, 1e-6)) ** 0.25
    return _smooth(certainty / _SURE) * _smooth((cosine - _GRAZING) / (_SQUARE - _GRAZING))


def _smooth(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)
