import pytest
import torch
from torch import nn

from hi3d_core.video_model import like_weights, placed, preferred_dtype

from .tiny_models import tiny_model

ELSEWHERE = torch.device("meta")  # every machine has it


def network():
    made = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    made[0].weight.requires_grad_(False)
    return made


def places(made):
    return {name: tensor.device.type for name, tensor in made.state_dict().items()}


def test_weights_are_on_the_device_only_inside():
    made = network()
    before = dict(made.named_parameters()) | dict(made.named_buffers())
    with placed(made, ELSEWHERE) as inside:
        assert inside is made
        assert set(places(made).values()) == {"meta"}
        assert not made[0].weight.requires_grad and made[0].bias.requires_grad
    after = dict(made.named_parameters()) | dict(made.named_buffers())
    assert after.keys() == before.keys()
    assert all(after[name] is tensor for name, tensor in before.items())  # the very same memory


def test_weights_come_back_after_an_error():
    made = network()
    weight = made[0].weight
    with pytest.raises(KeyError), placed(made, ELSEWHERE):
        raise KeyError
    assert made[0].weight is weight


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_nothing_is_copied_where_the_weights_are_already(device):
    made = network()
    weight = made[0].weight
    with placed(made, device):
        assert made[0].weight is weight


def test_like_weights_is_contiguous_in_the_networks_format():
    made = network().to(torch.bfloat16)
    picture = torch.rand(2, 8, 8, 3).permute(0, 3, 1, 2)
    given = like_weights(picture, made)
    assert given.is_contiguous() and given.dtype == torch.bfloat16


def test_half_precision_only_where_it_is_fast():
    assert preferred_dtype(torch.device("cuda")) == torch.float16
    assert preferred_dtype(torch.device("cpu")) == torch.float32
    assert preferred_dtype(torch.device("mps")) == torch.float32


def test_a_model_knows_its_grid_and_stage():
    model = tiny_model("orbit")
    assert model.frames == 16 and model.pixels_per_latent == 8
    model.check_stage("orbit", "f")
    with pytest.raises(ValueError, match=r"f got the orbit model.*second_stage\.pt"):
        model.check_stage("refiner", "f")
