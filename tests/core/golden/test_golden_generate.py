"""What the generate command finds out about checkpoints before it works."""

import pytest

from hi3d_core.commands.generate import _check_weights

from .goldens import need


def test_golden_checkpoints_are_known_by_their_headers(monkeypatch):
    monkeypatch.setenv("HI3D_MODELS", "")
    orbit, refiner = need("stage1/first_stage.pt"), need("stage2/second_stage.pt")
    depth = need("dpt/dpt_hybrid_384.pt")
    _check_weights(orbit, "orbit", None, None)
    _check_weights(refiner, "refiner", None, depth)
    with pytest.raises(ValueError, match="expected the refiner"):
        _check_weights(orbit, "refiner", None, depth)
    with pytest.raises(ValueError, match="expected the orbit"):
        _check_weights(refiner, "orbit", None, None)
    with pytest.raises(ValueError, match=r"depth network .* was not found"):
        _check_weights(refiner, "refiner", None, None)
    with pytest.raises(ValueError, match="expected the depth"):
        _check_weights(refiner, "refiner", None, orbit)
