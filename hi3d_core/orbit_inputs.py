"""Checks of what a user says about an orbit, shared by both diffusion stages."""

from __future__ import annotations

import logging
import math
from numbers import Real

_log = logging.getLogger(__name__)

TRAINED_ELEVATION_DEGREES = (-10.0, 40.0)


def check_cond_aug(deviation: float) -> None:
    """Refuse a noise on the conditioning pictures that is no finite number from 0 on."""
    if not 0 <= deviation < math.inf:  # also refuses NaN
        raise ValueError(
            f"cond_aug is {deviation}, expected 0 or more, officially 0.02: the noise's standard "
            "deviation on pictures in [-1, 1]"
        )


def check_elevation(degrees: float) -> float:
    """The elevation as a float, once it is known to make sense.

    degrees: of the camera above the horizon; positive looks down on the object. Outside the range
    that the networks were trained on, -10 to 40, the log warns.

    Raises ValueError for what is no finite number, and beyond 90 degrees up or down.
    """
    if isinstance(degrees, bool) or not isinstance(degrees, Real):
        raise ValueError(
            f"the elevation is {degrees!r}, expected a number of degrees: 0 at eye level, "
            "positive looking down on the object"
        )
    value = float(degrees)
    if not math.isfinite(value) or abs(value) > 90:
        raise ValueError(
            f"the elevation is {value} degrees, expected -90 to 90 (the networks know -10 to 40): "
            "0 at eye level, positive looking down on the object"
        )
    low, high = TRAINED_ELEVATION_DEGREES
    if not low <= value <= high:
        _log.warning(
            "the elevation %g is outside %g to %g degrees, which the networks were trained on: "
            "expect a worse orbit",
            value,
            low,
            high,
        )
    return value
