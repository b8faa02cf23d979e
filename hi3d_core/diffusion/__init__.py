"""Sampling from a denoiser: noise levels, preconditioning, guidance, solvers."""
