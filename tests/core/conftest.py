"""What all tests of the library share."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    """The tests' networks are so small that torch's threads mostly wait for each other.

    On a busy machine that slows them down tenfold.
    """
    torch.set_num_threads(1)
