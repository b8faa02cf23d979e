#!/usr/bin/env python3
"""Measure a model on orbits that it never saw: frames, meshes, ablations, guesses.

    python -m training.evaluate --out outputs/evaluation --objects 20
    python -m training.evaluate --out outputs/mine --data datasets/mine --meshes models \\
        --orbit-checkpoint runs/orbit/checkpoints/step_0001000/ema.safetensors \\
        --refiner-checkpoint runs/refiner/checkpoints/step_0001000/ema.safetensors

Without --data the objects are held-out toys. Written into --out: results.json (every object; a run
that is stopped goes on from it), table.md, table.json and pictures/ (true, painted and refined
frames of the first objects). Without checkpoints those are taken that `generate` would find.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: find the packages beside this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import hi3d_core.patient_threads  # noqa: F401  # isort: skip

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hi3d_core.atomic_file import replacing
from hi3d_core.contact_sheet import contact_sheet
from hi3d_core.export.checks import to_bytes
from hi3d_core.fingerprint import fingerprint
from hi3d_core.optional import MissingDependency
from hi3d_core.pipeline import QUALITIES
from hi3d_core.video_model import Stage, preferred_device, preferred_dtype
from hi3d_core.weights.find import find_stages
from hi3d_core.weights.load import load_video_model
from training.evaluation.checks import diversity, elevation_check
from training.evaluation.image_scores import image_scores, resized
from training.evaluation.journal import Journal
from training.evaluation.mesh_scores import mesh_scores
from training.evaluation.painter import Painter
from training.evaluation.perceptual import CHOICES, Perceptual, open_perceptual
from training.evaluation.rows import GUESSES, MODEL_ROWS, ROWS, check_rows
from training.evaluation.tables import markdown, summary
from training.evaluation.truth import Truth, Unusable, names_of, truths
from training.rendering.store import write_json
from training.toy_objects import HELD_OUT_SEEDS

_SHOWN = 8  # objects of which pictures are kept


@dataclass(frozen=True)
class Settings:
    """What is measured.

    source, count: of objects, see `truths`. meshes: the folder of a dataset's meshes.
    rows: of `ROWS`. quality: of the meshes; None makes none. seed: of all noise.
    seeds: orbits an object for the diversity; fewer than 2 leave it out.
    checks_elevation: one more orbit an object. training: what the mean of orbits is taken over.
    """

    source: str
    count: int | None = None
    meshes: Path | None = None
    rows: tuple[str, ...] = ROWS
    quality: str | None = "preview"
    seed: int = 0
    seeds: int = 4
    checks_elevation: bool = True
    training: str = "toys:0-31"

    @property
    def refines(self) -> bool:
        """Whether any row wants the second stage."""
        return any(name in MODEL_ROWS and MODEL_ROWS[name].refines for name in self.rows)


def evaluate(
    settings: Settings,
    painter: Painter,
    perceptual: Perceptual | None,
    out: Path,
    weights: dict[str, str],
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure the objects that are not in `out` yet; returns the summary of all, and writes it.

    weights: what tells the models from others, kept with the results. say: gets a line an object.
    Raises ValueError for bad input, and if not one object could be used.
    """
    check_rows(list(settings.rows))
    names = names_of(settings.source, settings.count)
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / "results.json", _record(settings, painter, perceptual, weights))
    mean = None
    if "mean" in settings.rows and set(names) - set(journal.objects):
        mean = _mean_orbit(settings.training, painter.size, out)
    done = set(journal.objects)
    for truth in truths(settings.source, painter.size, settings.count, settings.meshes, done):
        began = time.perf_counter()
        if isinstance(truth, Unusable):
            say(f"skipped: {truth.reason}")
            journal.add(truth.name, {"skipped": truth.reason})
            continue
        record, frames = measured(truth, settings, painter, perceptual, mean)
        if truth.name in names[:_SHOWN]:
            (out / "pictures").mkdir(exist_ok=True)
            with replacing(out / "pictures" / f"{truth.name}.png") as path:
                shown = [(name, each[::2]) for name, each in frames.items()]
                contact_sheet(shown, size=128).save(path)
        record["seconds"] = round(time.perf_counter() - began, 1)
        journal.add(truth.name, record)
        say(f"{truth.name}: {_in_short(record)}")
    told = summary({name: journal.objects[name] for name in names}, list(settings.rows))
    if not told["objects"]:
        raise ValueError(
            f"none of the {len(names)} objects of {settings.source} could be used; the first: "
            f"{next(iter(told['skipped'].values()))}"
        )
    with replacing(out / "table.json") as path:
        write_json(path, {"settings": journal.settings, **told})
    with replacing(out / "table.md") as path:
        path.write_text(markdown(told, journal.settings), encoding="utf-8")
    return told


def measured(
    truth: Truth,
    settings: Settings,
    painter: Painter,
    perceptual: Perceptual | None,
    mean: Tensor | None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One object's record, and the frames to look at, by what they are."""
    picture, elevation = truth.frames[0], truth.elevation_degrees
    orbit = painter.paint(picture, elevation, settings.seed)
    made = {"orbit": orbit}
    rows: dict[str, dict[str, Any]] = {}
    for name in settings.rows:
        if name in GUESSES:
            rows[name] = dict(image_scores(guess(name, truth, mean), truth.frames, perceptual))
            continue
        row = MODEL_ROWS[name]
        key = "orbit"
        if row.refines:
            key = "refined" if row.sees_depth else "refined without depth"
            if key not in made:
                made[key] = painter.refine(
                    orbit, picture, elevation, settings.seed, sees_depth=row.sees_depth
                )
        rows[name] = dict(image_scores(made[key], truth.frames, perceptual))
        if settings.quality is not None and truth.mesh is not None:
            rows[name] |= mesh_scores(
                made[key], elevation, truth.mesh, settings.quality, row.between, settings.seed
            )
    record: dict[str, Any] = {"elevation": elevation, "rows": rows}
    if settings.checks_elevation:
        record["elevation_check"] = elevation_check(painter, truth, orbit, settings.seed)
    if settings.seeds > 1:
        more = range(settings.seed + 1, settings.seed + settings.seeds)
        record["diversity"] = diversity(painter, truth, orbit, more)
    return record, {"true": truth.frames, **made}


def guess(name: str, truth: Truth, mean: Tensor | None) -> Tensor:
    """What someone who has no model could say, (F, S, S, 3). mean: of training orbits."""
    if name == "white":
        return torch.ones_like(truth.frames)
    if name == "input":
        return truth.frames[:1].expand_as(truth.frames)
    assert mean is not None  # `evaluate` makes it where the row is asked for
    return mean


def _mean_orbit(source: str, size: int, out: Path) -> Tensor:
    """The mean of training orbits, frame by frame, (F, S, S, 3); kept beside the results."""
    path = out / "mean_orbit.png"
    if not path.is_file():
        total, count = torch.zeros(()), 0
        for truth in truths(source, size):
            if isinstance(truth, Truth):
                total, count = total + truth.frames, count + 1
        if not count:
            raise ValueError(f"none of the objects of {source} could be used for their mean")
        with replacing(path) as temporary:
            Image.fromarray(to_bytes(torch.cat(list(total / count), dim=1))).save(temporary)
    with Image.open(path) as strip:
        pixels = torch.from_numpy(np.asarray(strip.convert("RGB")).copy()).float() / 255
    return resized(torch.stack(pixels.split(pixels.shape[0], dim=1)), size)


def _record(
    settings: Settings, painter: Painter, perceptual: Perceptual | None, weights: dict[str, str]
) -> dict[str, Any]:
    """What two runs into one folder must agree on; more objects may join."""
    is_toys = settings.source.startswith("toys:")
    return {
        # Of toys the first, as more of them may join.
        "source": settings.source.split("-")[0] if is_toys else settings.source,
        "rows": list(settings.rows),
        "quality": settings.quality,
        "seed": settings.seed,
        "seeds": settings.seeds,
        "checks_elevation": settings.checks_elevation,
        "training": settings.training,
        "size": painter.size,
        "perceptual": None if perceptual is None else perceptual.name,
        **weights,
    }


def _in_short(record: dict[str, Any]) -> str:
    parts = []
    for name, scores in record["rows"].items():
        shape = f", IoU {scores['iou']:.2f}" if "iou" in scores else ""
        parts.append(f"{name} {scores['psnr']:.1f} dB{shape}")
    return f"{'; '.join(parts)} ({record['seconds']:.0f} s)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--objects", type=int, default=20, help="how many (default 20)")
    parser.add_argument(
        "--seed", type=int, default=HELD_OUT_SEEDS.start, help="of the first held-out toy"
    )
    parser.add_argument("--data", help="a dataset's folder, instead of toys")
    parser.add_argument("--meshes", type=Path, help="the folder that the dataset was drawn from")
    parser.add_argument("--orbit-checkpoint", type=Path)
    parser.add_argument("--refiner-checkpoint", type=Path)
    parser.add_argument(
        "--rows", default=",".join(ROWS), help=f"some of {','.join(ROWS)} (default all)"
    )
    parser.add_argument("--no-meshes", action="store_true", help="frames alone: far quicker")
    parser.add_argument("--quality", choices=QUALITIES, default="preview", help="of the meshes")
    parser.add_argument("--noise-seed", type=int, default=0, help="of all noise")
    parser.add_argument("--seeds", type=int, default=4, help="orbits for the diversity; 0: none")
    parser.add_argument("--no-elevation-check", action="store_true")
    parser.add_argument(
        "--perceptual", choices=CHOICES, default="auto", help="a learned distance between pictures"
    )
    parser.add_argument(
        "--training", default="toys:0-31", help="what the row `mean` is the mean of (as --data)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    return parser


def _settings(given: argparse.Namespace) -> Settings:
    if given.objects < 1:
        raise ValueError(f"--objects is {given.objects}, expected at least 1")
    rows = tuple(each.strip() for each in given.rows.split(","))
    check_rows(list(rows))
    source = given.data or f"toys:{given.seed}-{given.seed + given.objects - 1}"
    return Settings(
        source=source,
        count=given.objects,
        meshes=given.meshes,
        rows=rows,
        quality=None if given.no_meshes else given.quality,
        seed=given.noise_seed,
        seeds=given.seeds,
        checks_elevation=not given.no_elevation_check,
        training=given.training,
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command; bad input ends it with a sentence."""
    given = _parser().parse_args(arguments)
    try:
        settings = _settings(given)
        names_of(settings.source)  # before weights are read
        perceptual = open_perceptual(given.perceptual)
        device = preferred_device() if given.device == "auto" else torch.device(given.device)
        stages: list[Stage] = ["orbit", "refiner"] if settings.refines else ["orbit"]
        found = find_stages(
            stages, {"orbit": given.orbit_checkpoint, "refiner": given.refiner_checkpoint}
        )
        dtype = preferred_dtype(device)
        models = {
            stage: load_video_model(path, stage, dtype=dtype) for stage, path in found.items()
        }
        painter = Painter(models["orbit"], models.get("refiner"), device)
        weights = {str(stage): f"{path.name} {fingerprint(path)}" for stage, path in found.items()}
        evaluate(settings, painter, perceptual, given.out, weights)
    except (ValueError, MissingDependency, OSError) as error:
        sys.exit(f"error: {error}")
    print((given.out / "table.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
