"""The released checkpoints' own lists of tensors, full size, against what the loader looks for."""

import json
from pathlib import Path

import pytest

from hi3d_core.networks.depth_network import DPT_HYBRID
from hi3d_core.networks.image_encoder import CLIP_VIT_H
from hi3d_core.networks.vae import VaeConfig
from hi3d_core.networks.video_unet import ORBIT_UNET, REFINER_UNET
from hi3d_core.weights.extras import known_extra
from hi3d_core.weights.load import Holding, plan_network
from hi3d_core.weights.parts import ROLES
from hi3d_core.weights.recognise import recognise

from .goldens import need

UNETS = {"orbit": ORBIT_UNET, "refiner": REFINER_UNET}
LISTS = {"orbit": "stage1/stage1_full_keys.json", "refiner": "stage2/stage2_full_keys.json"}


class Listed:
    """A checkpoint of which only the names and shapes are known."""

    def __init__(self, path, shapes):
        self.path, self.shapes, self.metadata = Path(path), shapes, {}


def listed(stage):
    content = json.loads(need(LISTS[stage]).read_text())
    shapes = {name: tuple(shape) for name, shape in content["keys"].items()}
    extra = {
        name: tuple(shape) for name, shape in content["summary"].get("maybe_extra", {}).items()
    }
    return Listed(LISTS[stage], shapes | extra), set(shapes)


@pytest.mark.parametrize("stage", ["orbit", "refiner"])
def test_golden_every_full_size_tensor_is_accounted_for(stage):
    file, _ = listed(stage)
    contents = recognise(file)
    assert contents.stage == stage and contents.official
    assert set(contents.prefixes) == set(ROLES[stage])
    used, settings = set(), {}
    for name, prefix in contents.prefixes.items():
        plan = plan_network(name, Holding(file, prefix, True), {})  # raises if any is missing
        used |= plan.used
        settings[name] = plan.settings
    assert settings["unet"] == UNETS[stage]
    assert settings["image_encoder"] == CLIP_VIT_H
    assert settings["vae"] == settings["conditioning_vae"] == VaeConfig()
    if stage == "refiner":
        assert settings["depth"] == DPT_HYBRID
    unknown = [name for name in set(file.shapes) - used if known_extra(name) is None]
    assert unknown == []


def test_golden_a_lost_tensor_is_missed():
    file, shapes = listed("orbit")
    for name in sorted(shapes):
        if known_extra(name) is None or "visual" in name:
            break
    del file.shapes[name]
    prefixes = recognise(file).prefixes
    (part,) = [each for each, prefix in prefixes.items() if name.startswith(prefix)]
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        plan_network(part, Holding(file, prefixes[part], True), {})
