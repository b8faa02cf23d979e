"""The recorded checkpoints, in the official form on disk, opened as users' files are."""

import pytest
import torch

from hi3d_core.weights.tensor_file import open_tensors

from .goldens import need, official_state

FILES = [
    "stage1/first_stage.pt",
    "stage2/second_stage.pt",
    "unet64/stage1_unet.pt",
    "unet64/stage2_unet.pt",
    "dpt/dpt_hybrid_384.pt",
]


@pytest.mark.parametrize("name", FILES)
def test_golden_checkpoints_open(name):
    expected = official_state(name, "")
    with open_tensors(need(name)) as file:
        assert set(file.names) == set(expected)
        for key, tensor in expected.items():
            assert file.shapes[key] == tuple(tensor.shape)
            assert torch.equal(file.read(key).float(), tensor)
