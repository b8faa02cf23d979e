"""Where each tensor of our networks lies in a checkpoint in the official naming.

Ours are diffusers' and transformers' names; the official ones are those of Stability's
`generative-models`, OpenCLIP and MiDaS. A map goes from our name to its `Source`, so that a network
knows whether a file holds all it needs, and what is left over is what no one asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Source:
    """One tensor of ours as it lies in an official file.

    name: the official key, without the network's prefix.
    part: (i, n) if ours is the i-th of n equal blocks along the first axis (fused q, k, v).
    transposed: the file holds (b, a) where ours is (a, b).
    kernel: the file holds a 1 x 1 convolution (a, b, 1, 1) where ours is a matrix (a, b).
    """

    name: str
    part: tuple[int, int] | None = None
    transposed: bool = False
    kernel: bool = False

    def official_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the file's tensor must have for ours to have `shape`."""
        if self.transposed:
            shape = shape[::-1]
        if self.kernel:
            shape = (*shape, 1, 1)
        if self.part is not None:
            shape = (shape[0] * self.part[1], *shape[1:])
        return shape

    def extract(self, tensor: Tensor) -> Tensor:
        """Our tensor from the file's, which must have `official_shape`."""
        if self.part is not None:
            index, count = self.part
            rows = len(tensor) // count
            tensor = tensor[index * rows : (index + 1) * rows]
        if self.kernel:
            tensor = tensor[..., 0, 0]
        return tensor.T if self.transposed else tensor
