"""Rotation matrices and quaternions."""

import torch

from hi3d_core.splat.rotations import matrices_from_quaternions, quaternions_from_matrices


def test_quaternions_and_matrices_are_inverse():
    g = torch.Generator().manual_seed(0)
    q = torch.nn.functional.normalize(torch.randn(200, 4, generator=g, dtype=torch.float64), dim=1)
    half_turns = torch.tensor([[0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]]).double()
    q = torch.cat([q, half_turns])
    matrices = matrices_from_quaternions(q)
    torch.testing.assert_close(
        matrices @ matrices.transpose(1, 2), torch.eye(3).double().expand(204, 3, 3)
    )
    back = quaternions_from_matrices(matrices)
    torch.testing.assert_close((back * q).sum(dim=1).abs(), torch.ones(204, dtype=torch.float64))
    # A quarter turn about y takes z to x.
    turn = matrices_from_quaternions(torch.tensor([[0.5**0.5, 0, 0.5**0.5, 0]]))[0]
    torch.testing.assert_close(
        turn @ torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0]), atol=1e-6, rtol=0
    )
