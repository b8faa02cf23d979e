"""A recipe as one module, which accelerate can wrap for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..recipe import Recipe
from .lora import Lora
from .settings import EngineSettings


class TrainedLoss(nn.Module):
    """Networks, and their loss as `forward`: gradients are shared by whoever wraps that.

    networks: of the recipe. lora: the matrices beside them, which are then trained instead.
    """

    def __init__(self, recipe: Recipe, settings: EngineSettings) -> None:
        super().__init__()
        self.networks = recipe.networks()
        if settings.train.gradient_checkpointing:
            save_activation_memory(self.networks)
        self.lora = Lora(self.networks, settings.lora) if settings.lora.rank else None
        # In a tuple, as a recipe that is a module would be registered, and its frozen parts too.
        self._recipe = (recipe,)

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The recipe's loss and its terms."""
        return self._recipe[0].loss(batch)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Within, the networks' own weights hold all that was learnt; not meant to be run."""
        if self.lora is None:
            yield
        else:
            with self.lora.merged():
                yield


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name.

    Raises ValueError if there are none.
    """
    found = {
        name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad
    }
    if not found:
        raise ValueError("the recipe's networks have no parameter with requires_grad")
    return found


def save_activation_memory(networks: nn.Module) -> None:
    """Switch on the gradient checkpointing of diffusers' and transformers' networks.

    Raises ValueError if no network offers it.
    """
    switches = {
        "enable_gradient_checkpointing": "_supports_gradient_checkpointing",
        "gradient_checkpointing_enable": "supports_gradient_checkpointing",
    }
    switched = False
    for module in networks.modules():
        for switch, offers in switches.items():
            if hasattr(module, switch) and getattr(module, offers, False):
                getattr(module, switch)()
                switched = True
    if not switched:
        raise ValueError(
            "train.gradient_checkpointing is on, and none of the networks offers it: switch it off"
        )
