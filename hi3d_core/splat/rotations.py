"""Rotation matrices and unit quaternions (w first), from one to the other."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def quaternions_from_matrices(rotations: Tensor) -> Tensor:
    """Unit quaternions (N, 4), w first and not negative, of rotations (N, 3, 3)."""
    # Bar-Itzhack 2000: the quaternion is the eigenvector of the largest eigenvalue of K(R).
    r = rotations.double().numpy()
    k = np.empty((len(r), 4, 4))
    k[:, 0, 0] = r[:, 0, 0] + r[:, 1, 1] + r[:, 2, 2]
    k[:, 0, 1] = k[:, 1, 0] = r[:, 2, 1] - r[:, 1, 2]
    k[:, 0, 2] = k[:, 2, 0] = r[:, 0, 2] - r[:, 2, 0]
    k[:, 0, 3] = k[:, 3, 0] = r[:, 1, 0] - r[:, 0, 1]
    k[:, 1, 1] = r[:, 0, 0] - r[:, 1, 1] - r[:, 2, 2]
    k[:, 2, 2] = r[:, 1, 1] - r[:, 0, 0] - r[:, 2, 2]
    k[:, 3, 3] = r[:, 2, 2] - r[:, 0, 0] - r[:, 1, 1]
    k[:, 1, 2] = k[:, 2, 1] = r[:, 0, 1] + r[:, 1, 0]
    k[:, 1, 3] = k[:, 3, 1] = r[:, 0, 2] + r[:, 2, 0]
    k[:, 2, 3] = k[:, 3, 2] = r[:, 1, 2] + r[:, 2, 1]
    quaternions = np.linalg.eigh(k)[1][:, :, 3]
    quaternions *= np.where(quaternions[:, :1] < 0, -1.0, 1.0)
    return torch.from_numpy(quaternions).to(rotations)


def matrices_from_quaternions(quaternions: Tensor) -> Tensor:
    """Rotations (N, 3, 3) of quaternions (N, 4), w first, of any length but zero."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=1).unbind(1)
    return torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        dim=1,
    ).reshape(-1, 3, 3)  # fmt: skip
