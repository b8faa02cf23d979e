"""Write docs/results.md, and its pictures, from the committed JSON of the benchmarks.

    python benchmarks/report_results.py [--pictures ../shared/eval ../shared/eval_inconsistent]

Tables come from benchmarks/results/reconstruction_*.json, interpolation_*.json, orbits.json and
reconstruction_cost.json; what the figures mean is written by hand in docs/results/notes.md and is
included as it is. With --pictures the evaluation folders are named whose meshes, as
bench_reconstruction.py left them in outputs/reconstruction, are drawn side by side into
docs/results; without, the pictures that are there are kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.bench_orbits import orbit_table  # noqa: E402
from benchmarks.reconstruction.cases import find_objects  # noqa: E402
from benchmarks.reconstruction.growth import (  # noqa: E402
    ablation_table,
    cost_tables,
    interpolation_table,
    method_means,
)
from benchmarks.reconstruction.journal import Run, read_journal  # noqa: E402
from benchmarks.reconstruction.pictures import comparison, write_jpeg  # noqa: E402
from benchmarks.reconstruction.tables import (  # noqa: E402
    GROUPS,
    by_method,
    reconstruction_tables,
)
from hi3d_core.atomic_file import replacing  # noqa: E402
from hi3d_core.pipeline import QUALITIES  # noqa: E402

RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"

_INTRODUCTION = """\
# Results

Written by `benchmarks/report_results.py` from the JSON in `benchmarks/results`; only the section
"Where it wins, and where it loses" is by hand (`docs/results/notes.md`).

**What is measured.** Each object is given as 16 posed views with alpha (512²). Scores are those of
[evaluate](stages/evaluate.md): distances in world units, objects about 1 across; held-out views
for PSNR and SSIM. *normals* is normal consistency over the visible surface: the mean absolute
cosine between a sample's face normal and that of the nearest face of the other mesh, both ways.
*seconds* are wall-clock, without reading, compiling (numba's cache is warm) and writing; *CPU s*
all threads' processor seconds of the same span; *peak* the process's resident set.

**How to repeat it.** Alone on the machine:

    python benchmarks/bench_reconstruction.py FOLDER --baselines      # and --quality, --interpolate
    python benchmarks/bench_interpolation.py FOLDER
    python benchmarks/bench_cost.py FOLDER/OBJECT
    python benchmarks/bench_orbits.py ORBIT.mp4
    python benchmarks/report_results.py --pictures FOLDER

FOLDER holds an object in each folder: `transforms.json`, `transforms_test.json` (NeRF's
convention, world Y up), `gt_closed.ply`, and `gt.glb` for renders from other cameras.

**Baselines**, in the same run and scored alike: the visual hull (256 nodes); TSDF fusion of the
standard splat's depths from 48 cameras (224 nodes); screened Poisson (Open3D) through 200,000
points of the hull; ComfyUI's *Extract Mesh from Splat* with its default settings on the same splat.
The first three get our cleaning, simplification and texture, so that only the surface differs; the
seconds of those that start from the splat include its fit.
"""

_ORBITS = """\
## Generated orbits

Frames that Hi3D's first stage painted, which no single shape can show: PSNR is over the object's
pixels, against the frames as they came and against the frames aligned to the render. In the
pictures: frames, renders of the textured mesh from the same cameras, and its bare shape.
"""

_PUBLISHED = """\
## Published figures of others

Other objects, other views, other protocols: **not comparable with the tables above**, only for an
idea of the field.

| method | Chamfer distance | volume IoU | time | source |
| --- | --- | --- | --- | --- |
| Hi3D's own mesh stage, generated views, GSO | .0172 | .663 | | Yang et al. 2024 |
| SV3D's reconstruction, from exact renders | .021 | .689 | | Voleti et al. 2024 |
| NeuS | | | about 12 h, GPU | Wang et al. 2021 |
| instant-nsr-pl | | | about 10 min, GPU | its README |
| NeuS2 | | | about 5 min, GPU | Wang et al. 2023 |
| 2DGS | | | about 11 min, GPU | Huang et al. 2024 |
"""


def main() -> None:
    """Write the page; draw pictures where asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", nargs="*", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--objects", type=lambda text: text.split(","), help="drawn; all if left")
    parser.add_argument("--meshes", type=Path, default=ROOT / "outputs" / "reconstruction")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    arguments = parser.parse_args()
    try:
        for folder in arguments.pictures:
            draw(folder, arguments.objects, arguments.meshes, arguments.docs / "results")
        text = page(arguments.results, arguments.docs / "results")
    except ValueError as error:
        sys.exit(str(error))
    with replacing(arguments.docs / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"wrote {arguments.docs / 'results.md'}")


def page(results: Path, pictures: Path) -> str:
    """The whole page, of the JSON files in `results` and the files in `pictures`.

    Raises ValueError for JSON that is no benchmark's.
    """
    parts = [_INTRODUCTION]
    notes = pictures / "notes.md"
    if notes.is_file():
        parts.append("## Where it wins, and where it loses\n\n" + notes.read_text(encoding="utf-8"))
    full = []
    for path in sorted(results.glob("reconstruction_*.json")):
        if path.stem == "reconstruction_cost":
            continue
        data, name = read_journal(path), path.stem.removeprefix("reconstruction_")
        parts.append(_summary(name, data, path))
        parts += _gallery(name, pictures)
        full.append(f"## Every run: {name}\n\n{reconstruction_tables(data['runs'])}")
    for path in sorted(results.glob("interpolation_*.json")):
        data, name = read_journal(path), path.stem.removeprefix("interpolation_")
        parts.append(f"## In-between views: {name}\n\n{_provenance(data, path)}\n")
        parts.append(interpolation_table(data["runs"]))
    orbits = results / "orbits.json"
    if orbits.is_file():
        data = read_journal(orbits)
        parts.append(f"{_ORBITS}\n{_provenance(data, orbits)}\n")
        parts.append(orbit_table(data["runs"]))
        parts += _gallery("orbit", pictures)
    cost = results / "reconstruction_cost.json"
    if cost.is_file():
        data = read_journal(cost)
        head = "## How the cost grows\n\nFew iterations, one thing varied at a time; see "
        parts.append(head + f"`benchmarks/bench_cost.py`. {_provenance(data, cost)}\n")
        parts.append(cost_tables(data["runs"]))
    parts += [_PUBLISHED, *full]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def draw(folder: Path, wanted: Sequence[str] | None, meshes: Path, into: Path) -> None:
    """Draw each object whose meshes are there into `into`/FOLDER-OBJECT.jpg."""
    name = folder.resolve().name
    for each in find_objects(folder, wanted):
        found = [
            (label, file)
            for label, pattern in _SHOWN.items()
            for file in sorted((meshes / name / each.name).glob(pattern))[:1]
        ]
        if found:
            write_jpeg(comparison(each, found), into / f"{name}-{each.name}.jpg")
            print(f"drew {name}-{each.name}.jpg: {', '.join(label for label, _ in found)}")


# Label and files of which the first is shown.
_SHOWN = {
    **{
        f"ours, {quality}": f"ours_{quality}_{config.interpolate}.glb"
        for quality, config in QUALITIES.items()
    },
    "visual hull": "hull.glb",
    "TSDF of splat": "tsdf.glb",
    "Poisson of hull": "poisson.glb",
    "ComfyUI's node": "node.glb",
}


def _summary(name: str, data: dict[str, Any], path: Path) -> str:
    runs: list[Run] = data["runs"]
    parts = [f"## {name}: means by method\n", _provenance(data, path) + "\n"]
    for group in GROUPS:
        table = method_means(by_method(runs), group)
        if table:
            parts.append(table)
    ablation = ablation_table(runs)
    if ablation:
        parts += ["### In-between views for the mesh\n", ablation]
    return "\n".join(parts)


def _provenance(data: dict[str, Any], path: Path) -> str:
    about, runs = data["machine"], data["runs"]
    threads = sorted({run["threads"] for run in runs if "threads" in run})
    dates = sorted({run["date"] for run in runs})
    # Of one state of the code, commits that leave it alone make no difference: the first is named.
    firsts: dict[str, str] = {}
    for run in sorted(runs, key=lambda run: str(run["commit"])):
        firsts.setdefault(run["code"], run["commit"])
    codes = [f"{commit} ({code})" for code, commit in firsts.items()]
    loads = [run["load_at_start"] or 0 for run in runs if "load_at_start" in run]
    busiest = f"load at a run's start at most {max(loads):g}" if loads else ""
    where = ", ".join(
        [
            f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB",
            *([str(about["gpu"])] if "gpu" in about else []),
            f"Python {about['python']}, torch {about['torch']}, numba {about['numba']}",
            f"{' or '.join(map(str, threads))} threads",
        ]
    )
    mixed = "" if len(codes) < 2 else " **The runs are of different states of the code.**"
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else ""
    return (
        f"`benchmarks/results/{path.name}`: {where}; {busiest}; {when}, code "
        f"{', '.join(codes)}.{mixed}"
    )


_CAPTION = "held-out view and meshes, colours above, shape below"
_CAPTIONS = {"orbit": "frames, renders and shape"}


def _gallery(name: str, pictures: Path) -> list[str]:
    return [
        f"![{file.stem}: {_CAPTIONS.get(name, _CAPTION)}]({pictures.name}/{file.name})\n"
        for file in sorted(pictures.glob(f"{name}-*.jpg"))
    ]


if __name__ == "__main__":
    main()
