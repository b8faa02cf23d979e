"""Low-rank adaptation of linear layers (Hu et al. 2021, "LoRA").

A layer's weight W stays as it is; trained is what is added to it, W + scale * up @ down, where
`down` has few rows. `up` begins at zero, so training begins at the given weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .settings import LoraSettings


class Lora(nn.Module):
    """The matrices of all layers that take part; the layers add their product by themselves."""

    def __init__(self, networks: nn.Module, settings: LoraSettings) -> None:
        """Freeze `networks` and lay matrices beside the layers that the settings name.

        Raises ValueError if no linear layer has such a name.
        """
        super().__init__()
        self._scale = settings.scale
        layers = {
            name: layer
            for name, layer in networks.named_modules()
            if isinstance(layer, nn.Linear) and f".{name}".endswith(_endings(settings))
        }
        if not layers:
            raise ValueError(
                f"no linear layer's name ends in {' or '.join(settings.layers)}: name others in "
                "lora.layers, or set lora.rank to 0"
            )
        networks.requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        self.pairs = nn.ModuleDict()
        together: list[tuple[nn.Linear, _Pair]] = []
        for name, layer in layers.items():
            pair = _Pair(layer, settings.rank, generator)
            layer.register_forward_hook(self._hook(pair))
            self.pairs[name.replace(".", "/")] = pair
            together.append((layer, pair))
        # No submodules of this one: they are registered where they belong.
        self._layers = tuple(together)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Within, the layers' weights hold the sum."""
        kept = [layer.weight.detach().clone() for layer, _ in self._layers]
        try:
            for layer, pair in self._layers:
                with torch.no_grad():
                    layer.weight += self._scale * (pair.up @ pair.down).to(layer.weight.dtype)
            yield
        finally:
            for (layer, _), weight in zip(self._layers, kept, strict=True):
                with torch.no_grad():
                    layer.weight.copy_(weight)

    def _hook(self, pair: _Pair) -> Any:
        def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + self._scale * pair(inputs[0])

        return add


class _Pair(nn.Module):
    def __init__(self, layer: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        start = torch.randn(rank, layer.in_features, generator=generator) * layer.in_features**-0.5
        self.down = nn.Parameter(start.to(layer.weight.device))
        self.up = nn.Parameter(torch.zeros_like(layer.weight[:, :1]).repeat(1, rank).float())

    def forward(self, inputs: Tensor) -> Tensor:
        down, up = self.down.to(inputs.dtype), self.up.to(inputs.dtype)
        return functional.linear(functional.linear(inputs, down), up)


def _endings(settings: LoraSettings) -> tuple[str, ...]:
    return tuple(f".{ending}" for ending in settings.layers)
