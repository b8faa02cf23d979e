"""What becomes of generated orbits, which have no truth: likeness to their own frames.

    python benchmarks/bench_orbits.py ORBIT.mp4 [ORBIT.mp4 ...] [--elevation 0]

Each orbit is reconstructed, and its textured mesh rendered from the orbit's own cameras. Printed
are the mean over frames of the PSNR on the object's pixels, against the frames as they came and
against the frames aligned to the render (`align.align_views`, window 8, no view held fixed): the
first counts what no single shape could show, for the frames disagree by a pixel or two; the second
what is left after that. Numbers can't tell a face from a lump: a picture of frames, renders and
bare shapes goes to docs/results/orbit-NAME.jpg, and the figures to benchmarks/results/orbits.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.reconstruction.journal import Journal, Run  # noqa: E402
from benchmarks.reconstruction.launch import stamped  # noqa: E402
from benchmarks.reconstruction.machine import circumstances, code_version, machine  # noqa: E402
from benchmarks.reconstruction.pictures import write_jpeg  # noqa: E402
from hi3d_core.align.align import AlignConfig, align_views  # noqa: E402
from hi3d_core.align.flow import FlowConfig  # noqa: E402
from hi3d_core.commands.stage_clock import StageClock  # noqa: E402
from hi3d_core.datatypes import Mesh, OrbitViews  # noqa: E402
from hi3d_core.pipeline import QUALITIES, reconstruct  # noqa: E402
from hi3d_core.read import read_views  # noqa: E402
from hi3d_core.render import render_mesh  # noqa: E402

_SHOWN = (0, 2, 4, 8, 13)  # of 16 frames: the front, its sides, the back
_WIDTH = 1100  # pixels of the picture


def main() -> None:
    """Reconstruct each orbit, print a table, write JSON and pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("orbits", type=Path, nargs="+", metavar="ORBIT")
    parser.add_argument("--elevation", type=float, default=0.0, help="degrees, of all of them")
    parser.add_argument("--quality", choices=sorted(QUALITIES), default="standard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "orbits.json")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    settings = {name: getattr(arguments, name) for name in ("elevation", "quality", "seed")}
    try:
        journal = Journal(arguments.out, machine())
        for path in arguments.orbits:
            outcome, picture = run(path, **settings)
            journal.add(stamped({"orbit": path.stem, **settings}, code_version(), outcome))
            write_jpeg(picture, arguments.pictures / f"orbit-{path.stem}.jpg")
    except ValueError as error:
        sys.exit(str(error))
    print(orbit_table(journal.runs))


def run(path: Path, *, elevation: float, quality: str, seed: int) -> tuple[Run, Image.Image]:
    """What came of an orbit, and a picture of it."""
    views = read_views(path, elevation_degrees=elevation)
    before, clock = circumstances(), StageClock()
    found = reconstruct(views, QUALITIES[quality], seed=seed, on_stage=clock.begin)
    clock.end()
    drawn = render_mesh(found.mesh, views.cameras)
    rendered = OrbitViews(drawn.images.clamp(0, 1), drawn.alphas.clamp(0, 1), views.cameras)
    config = AlignConfig(flow=FlowConfig(window=8.0, outline=5.0))
    aligned = align_views(views, rendered, config, reference=None).views
    shifts = torch.zeros(1) if found.shifts is None else found.shifts
    outcome: dict[str, Any] = {
        "psnr_raw": round(_object_psnr(rendered, views), 2),
        "psnr_aligned": round(_object_psnr(rendered, aligned), 2),
        "covered": round(float((rendered.alphas > 0.5)[views.alphas > 0.5].float().mean()), 4),
        "agreement": round(found.agreement, 4),
        "shift": round(float(shifts.square().mean().sqrt()), 2),
        "seconds": {name: round(value, 1) for name, value in clock.seconds.items()},
        **before,
    }
    return outcome, _picture(views, rendered, found.mesh)


def orbit_table(runs: list[Run]) -> str:
    """Markdown: a row an orbit."""
    rows = [
        "| orbit | quality | silhouettes agree | moved, px rms | covered | PSNR, raw frames "
        "| PSNR, aligned frames | seconds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in runs:
        rows.append(
            f"| {each['task']['orbit']} | {each['task']['quality']} | {each['agreement']:.3f} "
            f"| {each['shift']:.1f} | {each['covered']:.3f} | {each['psnr_raw']:.1f} "
            f"| {each['psnr_aligned']:.1f} | {sum(each['seconds'].values()):.0f} |"
        )
    return "\n".join(rows) + "\n"


def _object_psnr(rendered: OrbitViews, views: OrbitViews) -> float:
    """Mean over views of the PSNR on the views' object pixels, dB."""
    squares = (rendered.images - views.images).square().mean(dim=-1)
    errors = [
        square[alpha > 0.5].mean() for square, alpha in zip(squares, views.alphas, strict=True)
    ]
    return float(-10 * torch.stack(errors).log10().mean())


def _picture(views: OrbitViews, rendered: OrbitViews, mesh: Mesh) -> Image.Image:
    """Frames above, renders in the middle, bare shapes below."""
    shown = [view for view in _SHOWN if view < len(views)]
    shapes = render_mesh(Mesh(mesh.vertices, mesh.faces), views.cameras[shown], shading="soft")
    marked = (views.alphas > 0.5).any(dim=0)
    rows, columns = (marked.any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
    part = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))

    def side_by_side(pictures: Tensor) -> np.ndarray:
        return np.concatenate([each[part].clamp(0, 1).numpy() for each in pictures], axis=1)

    sheet = np.concatenate(
        [
            side_by_side(each)
            for each in (views.images[shown], rendered.images[shown], shapes.images)
        ]
    )
    picture = Image.fromarray(np.rint(sheet * 255).astype(np.uint8))
    height = round(picture.height * _WIDTH / picture.width)
    return picture.resize((_WIDTH, height), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
