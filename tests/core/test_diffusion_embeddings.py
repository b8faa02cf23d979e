"""Sinusoidal embeddings, against a loop over channels."""

import math

import pytest
import torch

from hi3d_core.diffusion.embeddings import (
    aesthetic_embedding,
    orbit_vector,
    refiner_vector,
    sinusoidal,
)


def by_loop(value, channels):
    half = channels // 2
    angles = [value * 10_000 ** (-k / half) for k in range(half)]
    zeros = [0.0] * (channels % 2)
    return [math.cos(a) for a in angles] + [math.sin(a) for a in angles] + zeros


@pytest.mark.parametrize("channels", [4, 255, 256])
def test_sinusoidal_is_cosines_then_sines(channels):
    values = [-10.0, 0.0, 0.02, 12.5, 40.0]
    embedded = sinusoidal(torch.tensor(values), channels)
    assert embedded.dtype == torch.float32
    expected = torch.tensor([by_loop(value, channels) for value in values])
    assert torch.allclose(embedded, expected, atol=1e-5)


def test_whole_degrees_may_be_integers():
    assert torch.equal(sinusoidal(torch.tensor([30]), 256), sinusoidal(torch.tensor([30.0]), 256))


def test_the_aesthetic_part_is_the_score_and_a_hundred_times_it():
    scores = [4.25, 6.0]
    embedded = aesthetic_embedding(torch.tensor(scores)[:, None])
    expected = torch.tensor([[score, *by_loop(100 * score, 255)] for score in scores])
    assert torch.allclose(embedded, expected, atol=1e-4)
    assert (embedded[:, -1] == 0).all()


def test_vectors_hold_their_parts_in_order():
    score, elevation, noise = torch.tensor([[5.5]]), torch.tensor([20.0]), torch.tensor([0.02])
    vector = orbit_vector(score, elevation, noise)
    assert vector.shape == (1, 768)
    assert torch.equal(vector[:, :256], aesthetic_embedding(score))
    assert torch.equal(vector[:, 256:512], sinusoidal(elevation, 256))
    assert torch.equal(vector[:, 512:], sinusoidal(noise, 256))
    assert torch.equal(refiner_vector(elevation, noise), vector[:, 256:])
