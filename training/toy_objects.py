"""An endless supply of small painted objects, each made from its seed alone.

    python training/toy_objects.py --sheet toys.png --count 24      # to look at some
    python training/toy_objects.py --seed 7 --glb toy.glb           # to take one elsewhere

An object is a closed surface (or several that overlap) with colours at its vertices, in the unit
cube about the origin, Y up, its front towards +Z. Front and back differ: eyes, doors, letters.
Seeds of `HELD_OUT_SEEDS` are for measuring and never for training: see `training_toy`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # when it is run as a script
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from hi3d_core.cameras import Cameras  # noqa: E402
from hi3d_core.contact_sheet import contact_sheet  # noqa: E402
from hi3d_core.datatypes import Mesh  # noqa: E402
from hi3d_core.export.glb import write_glb  # noqa: E402
from hi3d_core.render import render_mesh  # noqa: E402
from training.toys.assembly import Assembly  # noqa: E402
from training.toys.designs import DESIGNS  # noqa: E402
from training.toys.solids import Solid  # noqa: E402

TRAIN_SEEDS = range(0, 1_000_000)
HELD_OUT_SEEDS = range(1_000_000, 1_001_000)

SPACING = 0.016  # between vertices, in units of the object's size: three pixels of a 256² picture
_STREAM = 0x70F5  # keeps our random numbers apart from others made from the same small seeds
_LAMP = np.array([0.35, 0.8, 0.48])  # where the light that is painted on comes from
_SHADE = 0.3  # how much darker a surface is that looks away from it


def toy_object(seed: int, *, spacing: float = SPACING) -> Mesh:
    """The toy of a seed: closed, outward faces, vertex colours, longest side 1 about the origin.

    seed: any whole number from 0 on. spacing: between vertices, in about the object's size; a
    smaller one makes the paint sharper (0.004 suits pictures of 1024²). The same seed and spacing
    give the same bits on one machine.

    Raises ValueError for a negative seed or a spacing outside 0.002 to 0.05.
    """
    if seed < 0:
        raise ValueError(f"the seed is {seed}, expected a whole number from 0 on")
    if not 0.002 <= spacing <= 0.05:
        raise ValueError(f"spacing is {spacing}, expected 0.002 to 0.05")
    rng = np.random.default_rng([_STREAM, seed])
    assembly = Assembly(rng, spacing)
    DESIGNS[rng.integers(len(DESIGNS))](assembly)
    whole = Solid(np.concatenate(assembly.points), np.concatenate(assembly.faces))
    colors = np.concatenate(assembly.colors) * _light(whole)[:, None]
    low, high = whole.points.min(axis=0), whole.points.max(axis=0)
    points = (whole.points - (low + high) / 2) / (high - low).max()
    return Mesh(
        torch.from_numpy(points.astype(np.float32)),
        torch.from_numpy(np.ascontiguousarray(whole.faces)),
        vertex_colors=torch.from_numpy(np.clip(colors, 0, 1).astype(np.float32)),
    )


def check_training_seed(seed: int) -> None:
    """Raise ValueError for a seed that training must not see."""
    if seed in HELD_OUT_SEEDS:
        raise ValueError(
            f"toy {seed} is held out for measuring: train on seeds {TRAIN_SEEDS.start} to "
            f"{TRAIN_SEEDS.stop - 1}"
        )
    if seed not in TRAIN_SEEDS:
        raise ValueError(
            f"toy {seed} is no training seed: expected {TRAIN_SEEDS.start} to "
            f"{TRAIN_SEEDS.stop - 1}"
        )


def training_toy(seed: int, *, spacing: float = SPACING) -> Mesh:
    """`toy_object` for training: a seed outside `TRAIN_SEEDS` raises ValueError."""
    check_training_seed(seed)
    return toy_object(seed, spacing=spacing)


def _light(solid: Solid) -> np.ndarray:
    """(N,) brightness by where a surface looks, painted on, so that shapes read without a lamp."""
    lamp = _LAMP / np.linalg.norm(_LAMP)
    return 1 - _SHADE * (0.5 - 0.5 * (solid.normals() @ lamp))


def main() -> None:
    """Write a sheet of toys, or one toy as GLB."""
    parser = argparse.ArgumentParser(description="Look at toy objects.")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--size", type=int, default=160, help="pixels of a picture")
    parser.add_argument("--sheet", type=Path, help="PNG to write: each toy from four sides")
    parser.add_argument("--glb", type=Path, help="GLB to write, of the first toy")
    arguments = parser.parse_args()
    if arguments.sheet:
        cameras = Cameras.orbit(4, 20.0, width=arguments.size, height=arguments.size)
        rows = []
        for seed in range(arguments.seed, arguments.seed + arguments.count):
            rows.append((f"toy {seed}", render_mesh(toy_object(seed), cameras).images))
        pairs = [
            (f"{name}, {other}", torch.cat([first, second]))
            for (name, first), (other, second) in zip(rows[::2], rows[1::2], strict=False)
        ] or rows
        contact_sheet(pairs, size=arguments.size).save(arguments.sheet)
    if arguments.glb:
        write_glb(toy_object(arguments.seed), arguments.glb)


if __name__ == "__main__":
    main()
