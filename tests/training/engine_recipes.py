"""Tiny recipes for the engine's tests, and a program that trains one in a process of its own."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from training.engine.loop import train
from training.engine.prepared import part_processes
from training.engine.settings import EngineSettings, OptimizerSettings, TrainSettings

VIDEOS = 4  # a step's batch


class SineRecipe:
    """A small network learns sines; every draw is decided by step and place in the batch."""

    def __init__(self, pause=0.0, videos=VIDEOS, stop_in_rank=None):
        """stop_in_rank: (rank, step) at which that process alone gets SIGTERM."""
        generator = torch.Generator().manual_seed(3)
        self.network = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Dropout(0.0), nn.Linear(16, 1))
        for parameter in self.network.parameters():
            nn.init.normal_(parameter, 0, 0.5, generator=generator)
        self.seen = []
        self._pause, self._videos, self._stop = pause, videos, stop_in_rank

    def networks(self):
        return self.network

    def batch(self, step, rank, world):
        if self._videos % world:
            raise ValueError(f"{self._videos} can't be shared by {world}")
        time.sleep(self._pause)
        if self._stop is not None and self._stop == [int(os.environ["RANK"]), step]:
            os.kill(os.getpid(), signal.SIGTERM)
        self.seen.append((step, rank, world))
        mine = range(rank * self._videos // world, (rank + 1) * self._videos // world)
        draws = [torch.Generator().manual_seed(1000 * step + place) for place in mine]
        return {"x": torch.stack([torch.rand(8, 1, generator=each) * 6 for each in draws])}

    def loss(self, batch):
        x = batch["x"]
        fit = (self.network(x) - torch.sin(x)).square().mean()
        size = 1e-3 * self.network[0].weight.square().mean()
        return fit + size, {"fit": float(fit.detach()), "size": float(size.detach())}

    def samples(self):
        return (
            torch.sigmoid(self.network(torch.linspace(0, 6, 75)[:, None]))
            .reshape(1, 5, 5, 3)
            .repeat(5, 1, 1, 1)
        )

    def state(self):
        return {f"unet.{name}": each for name, each in self.network.state_dict().items()}

    def metadata(self):
        return {"hi3d_stage": "orbit"}


class DropoutRecipe(SineRecipe):
    """Draws from torch's own generator, and keeps a running mean, besides."""

    def __init__(self, **options):
        super().__init__(**options)
        self.network[2].p = 0.3
        self.network.insert(1, nn.BatchNorm1d(8))


def settings(train=None, optimizer=None, **tables):
    plain = {"steps": 12, "cpu": True, "save_every": 4, "log_every": 1, "ema_decay": 0.9}
    fast = {"learning_rate": 0.02, "warm_up_steps": 5, "decay": "cosine"}
    return EngineSettings(
        train=TrainSettings(**{**plain, **(train or {})}),
        optimizer=OptimizerSettings(**{**fast, **(optimizer or {})}),
        **tables,
    )


def everything(recipe):
    return {name: each.clone() for name, each in recipe.network.state_dict().items()}


def divide_weights():
    """Have FSDP 2 divide the weights among processes without a GPU.

    accelerate wants one for it, so torch's function is called in its place.
    """

    def prepare(self, module, optimizer):
        held = {name: each.detach().clone() for name, each in module.named_parameters()}
        fully_shard(module, mesh=init_device_mesh("cpu", (self.num_processes,)))
        parameters = dict(module.named_parameters())
        assert all(each.shape == held[name].shape for name, each in parameters.items())
        optimizer.param_groups[0]["params"] = list(parameters.values())
        return module, self.prepare_optimizer(optimizer)

    Accelerator.prepare = prepare


def main():
    """FOLDER RECIPE OPTIONS: train in this process and tell how it ended."""
    folder, kind, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    torch.set_num_threads(1)
    if options.get("deepspeed"):
        # accelerate would want a GPU for it.
        PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
    if options.get("divided"):
        divide_weights()
    recipe = globals()[kind](**options.get("recipe", {}))
    chosen = settings(options.get("train"), options.get("optimizer"))
    outcome = train(recipe, chosen, folder, resume=options.get("resume", "never"), quiet=True)
    parameters = type(recipe.network[0].weight).__name__
    told = {"steps": outcome.steps, "reason": outcome.reason, "parameters": parameters}
    print(json.dumps(told), flush=True)
    part_processes()


if __name__ == "__main__":
    main()
