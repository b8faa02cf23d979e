import numpy as np

from hi3d_core.memory import available_bytes, peak_memory_bytes


def test_the_peak_grows_with_what_is_held_and_never_falls():
    before = peak_memory_bytes()
    held = np.ones(64 * 2**20, np.uint8)  # ones, so that the pages are really taken
    during = peak_memory_bytes()
    assert held.sum() == 64 * 2**20
    del held
    # Other tests may have held more before; then the peak stays.
    assert during >= before
    assert peak_memory_bytes() >= during
    assert during > 64 * 2**20


def test_available_memory_is_a_plausible_share_of_a_machine():
    assert 16 * 2**20 < available_bytes() < 2**50
