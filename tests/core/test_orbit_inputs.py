import logging

import numpy as np
import pytest

from hi3d_core.orbit_inputs import check_elevation


@pytest.mark.parametrize("degrees", [-10, 0, 12.5, 40, np.float32(3)])
def test_known_elevations_pass_in_silence(degrees, caplog):
    with caplog.at_level(logging.INFO):
        assert check_elevation(degrees) == float(degrees)
    assert caplog.text == ""


@pytest.mark.parametrize("degrees", [-10.01, 40.01, 90, -90])
def test_unknown_ones_are_warned_of(degrees, caplog):
    with caplog.at_level(logging.INFO):
        assert check_elevation(degrees) == degrees
    assert "trained" in caplog.text


@pytest.mark.parametrize(
    "degrees", [float("nan"), float("inf"), -float("inf"), 90.1, -1e9, None, "10", True, 1j]
)
def test_the_rest_is_refused(degrees):
    with pytest.raises(ValueError, match="elevation"):
        check_elevation(degrees)
