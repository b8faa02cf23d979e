"""How the cost grows with views, with pixels, and with the surface's area in voxels.

    python benchmarks/bench_cost.py ../shared/eval/ccby_horse [--share 0.1] [--again]

One thing is varied at a time: 8 to 64 views, pictures of 256² to 1024², one grid of 64 to 256
nodes on the longest side, whose hollows are not dug: that is done on the coarsest level, which is
small whatever the last one is. The views are exact renders of the object's gt.glb. Few iterations
(--share of the quality's), each run in a process of its own, after a warm-up; under 10 minutes
on two idle cores. The exponent is the slope of log seconds over log size, by least squares: 1 is
linear growth, 0 none. Resumable, like bench_reconstruction.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.reconstruction.cases import find_objects  # noqa: E402
from benchmarks.reconstruction.growth import cost_tables  # noqa: E402
from benchmarks.reconstruction.journal import Journal, Run  # noqa: E402
from benchmarks.reconstruction.launch import launch, stamped, warm_up  # noqa: E402
from benchmarks.reconstruction.machine import code_version, machine  # noqa: E402
from hi3d_core.pipeline import QUALITIES  # noqa: E402

USUAL = {"views": 16, "pixels": 512, "nodes": 128}
AXES = {"views": (8, 16, 32, 64), "pixels": (256, 512, 1024), "nodes": (64, 96, 128, 192, 256)}


def main() -> None:
    """Run what is missing, print tables, write JSON and Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="OBJECT_FOLDER")
    parser.add_argument("--quality", choices=QUALITIES, default="standard")
    parser.add_argument("--share", type=float, default=0.1, help="of the iterations")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "reconstruction_cost.json"
    )
    parser.add_argument("--again", action="store_true", help="also what was done before")
    arguments = parser.parse_args()
    try:
        (folder,) = find_objects(arguments.folder.resolve().parent, [arguments.folder.name])
        journal = Journal(arguments.out, machine())
    except ValueError as error:
        sys.exit(str(error))
    run_all(folder, journal, arguments.quality, arguments.share, again=arguments.again)
    markdown = cost_tables(journal.runs)
    arguments.out.with_suffix(".md").write_text(markdown, encoding="utf-8")
    print(f"\n{markdown}\nwrote {arguments.out}")


def run_all(
    folder: Path, journal: Journal, quality: str, share: float, *, again: bool = False
) -> None:
    """Do all sizes that are not in the journal."""
    code = code_version()
    is_warm = False
    for task in tasks(folder.name, quality, share):
        if journal.has(task, code) and not again:
            continue
        if not is_warm:
            warm_up(folder, quality)
            is_warm = True
        given = {name: value for name, value in task.items() if name != "object"}
        outcome = launch("cost", folder=folder, **given)
        journal.add(stamped(task, code, outcome))
        print(task, outcome.get("failed") or f"{outcome['wall_seconds']} s", flush=True)


def tasks(name: str, quality: str, share: float) -> list[Run]:
    """All sizes, each once: those of every axis with the others at their usual values."""
    sizes = [{**USUAL, axis: value} for axis, values in AXES.items() for value in values]
    unique = [size for index, size in enumerate(sizes) if size not in sizes[:index]]
    return [{"object": name, "quality": quality, "share": share, **size} for size in unique]


if __name__ == "__main__":
    main()
