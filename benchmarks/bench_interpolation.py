"""How good a splat's in-between views are, against exact renders.

    python benchmarks/bench_interpolation.py ../shared/eval [--quality preview standard high]

A splat is fitted to the views given (16 at 512²), and drawn from 16 cameras in between; the truth
there is rendered from the object's gt.glb. Prints PSNR over white and seconds, and writes
benchmarks/results/interpolation_FOLDER.json. What in-between views do for the mesh is measured by
bench_reconstruction.py --interpolate 0 16 32 48.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.reconstruction.cases import find_objects  # noqa: E402
from benchmarks.reconstruction.growth import interpolation_table  # noqa: E402
from benchmarks.reconstruction.journal import Journal  # noqa: E402
from benchmarks.reconstruction.launch import launch, stamped, warm_up  # noqa: E402
from benchmarks.reconstruction.machine import code_version, machine  # noqa: E402

QUALITIES = ("preview", "standard", "high")


def main() -> None:
    """Run what is missing, print a table, write JSON and Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--objects", type=lambda text: text.split(","), metavar="A,B")
    parser.add_argument("--quality", nargs="+", choices=QUALITIES, default=["standard"])
    parser.add_argument("--count", type=int, default=16, help="in-between cameras")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--again", action="store_true", help="also what was done before")
    arguments = parser.parse_args()
    name = f"interpolation_{arguments.folder.resolve().name}.json"
    out = arguments.out or ROOT / "benchmarks" / "results" / name
    try:
        objects = find_objects(arguments.folder, arguments.objects)
        journal = Journal(out, machine())
    except ValueError as error:
        sys.exit(str(error))
    code, is_warm = code_version(), False
    for folder in objects:
        for quality in arguments.quality:
            settings = {"quality": quality, "count": arguments.count, "seed": arguments.seed}
            task = {"object": folder.name, **settings}
            if journal.has(task, code) and not arguments.again:
                continue
            if not is_warm:
                warm_up(folder, "preview")
                is_warm = True
            outcome = launch("interpolation", folder=folder, **settings)
            journal.add(stamped(task, code, outcome))
            print(task, outcome.get("failed") or f"{outcome['psnr']} dB", flush=True)
    markdown = interpolation_table(journal.runs)
    out.with_suffix(".md").write_text(markdown, encoding="utf-8")
    print(f"\n{markdown}\nwrote {out}")


if __name__ == "__main__":
    main()
