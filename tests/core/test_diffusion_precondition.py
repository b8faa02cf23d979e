"""The coefficients that make a v-predicting network a denoiser."""

import torch

from hi3d_core.diffusion.precondition import v_coefficients

SIGMAS = torch.tensor([0.002, 0.05, 1.0, 30.0, 700.0], dtype=torch.float64)


def test_a_network_that_knows_v_gives_the_clean_sample_back():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 5, 100, generator=generator, dtype=torch.float64)
    sigma = SIGMAS[:, None]
    c_skip, c_out, c_in, _ = v_coefficients(sigma)
    noisy = clean + sigma * noise
    # v of the unit-variance mixture alpha clean + beta noise is alpha noise - beta clean.
    alpha, beta = 1 / torch.sqrt(1 + sigma**2), sigma / torch.sqrt(1 + sigma**2)
    assert torch.allclose(c_in * noisy, alpha * clean + beta * noise)
    assert torch.allclose(c_skip * noisy + c_out * (alpha * noise - beta * clean), clean)


def test_the_network_is_told_a_quarter_of_the_logarithm():
    assert torch.equal(v_coefficients(SIGMAS)[3], 0.25 * torch.log(SIGMAS))


def test_dtype_and_shape_stay():
    for part in v_coefficients(torch.tensor(3.0)):
        assert part.shape == ()
        assert part.dtype == torch.float32
