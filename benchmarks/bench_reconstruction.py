"""How good the meshes are, what they cost, and how other ways from the same views compare.

    python benchmarks/bench_reconstruction.py ../shared/eval --baselines
    python benchmarks/bench_reconstruction.py ../shared/eval --quality preview standard high
    python benchmarks/bench_reconstruction.py ../shared/eval_inconsistent --interpolate 0 16 32 48

FOLDER holds an object in each folder: transforms.json (the views given), transforms_test.json
(held-out views), gt_closed.ply (the truth). Every run has a process of its own, so its peak of
memory is its own; a short run before compiles numba's kernels into their cache on disk, which is
not timed. Reading the views and scoring are not timed either. Run it alone on the machine.

Scores are those of docs/stages/evaluate.md and normal consistency; --judge runs another scorer
besides. Runs are kept in benchmarks/results/reconstruction_FOLDER.json after each one; those that
are there with the same settings and code are not done again, so an interrupted benchmark goes on
where it was. Meshes land in outputs/reconstruction/FOLDER, from which report_results.py draws.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.reconstruction.baselines import NEED_SPLAT, SURFACES  # noqa: E402
from benchmarks.reconstruction.cases import find_objects  # noqa: E402
from benchmarks.reconstruction.journal import Journal, Run  # noqa: E402
from benchmarks.reconstruction.launch import launch, stamped, warm_up  # noqa: E402
from benchmarks.reconstruction.machine import code_version, machine  # noqa: E402
from benchmarks.reconstruction.scores import judged  # noqa: E402
from benchmarks.reconstruction.tables import reconstruction_tables, run_line  # noqa: E402
from hi3d_core.pipeline import QUALITIES  # noqa: E402


@dataclass(frozen=True)
class Plan:
    """What to run on each object, and where files go."""

    objects: list[Path]
    qualities: list[str]
    interpolate: list[int] | None  # None: each quality's own
    baselines: list[str]
    seed: int
    meshes: Path
    judge: Path | None
    limit: float = 1800  # seconds that a run may take

    def tasks(self, folder: Path) -> Iterator[Run]:
        """What is asked of one object; a task is a run's name in the journal."""
        base = {"object": folder.name, "seed": self.seed}
        for quality in self.qualities:
            for count in self.interpolate or [QUALITIES[quality].interpolate]:
                yield {**base, "method": "ours", "quality": quality, "interpolate": count}
        for method in self.baselines:
            yield {**base, "method": method}

    def mesh_file(self, task: Run) -> Path:
        """Where a task's mesh goes."""
        return self.meshes / task["object"] / f"{method_name(task)}.glb"


def method_name(task: Run) -> str:
    """A file's name for a task's method and settings: ours_standard_16, hull."""
    parts = [task["method"], task.get("quality"), task.get("interpolate")]
    return "_".join(str(part) for part in parts if part is not None)


def main() -> None:
    """Run what is missing, print tables, write JSON and Markdown."""
    arguments = _parse()
    folder: Path = arguments.folder
    name = folder.resolve().name
    out = arguments.out or ROOT / "benchmarks" / "results" / f"reconstruction_{name}.json"
    try:
        plan = Plan(
            find_objects(folder, arguments.objects),
            arguments.quality,
            arguments.interpolate,
            _baselines(arguments.baselines),
            arguments.seed,
            (arguments.meshes or ROOT / "outputs" / "reconstruction") / name,
            arguments.judge,
            arguments.limit,
        )
        journal = Journal(out, machine())
    except ValueError as error:
        sys.exit(str(error))
    failed = run_plan(plan, journal, code_version(), again=arguments.again)
    markdown = reconstruction_tables(journal.runs)
    out.with_suffix(".md").write_text(markdown, encoding="utf-8")
    print(f"\n{markdown}\nwrote {out} and {out.with_suffix('.md').name}")
    if failed:
        sys.exit(f"{failed} runs failed")


def run_plan(plan: Plan, journal: Journal, code: str, *, again: bool = False) -> int:
    """Do all tasks that are not in the journal; returns how many failed."""
    failed, is_warm = 0, False
    for folder in plan.objects:
        splat = _Splat(folder, plan)
        for task in plan.tasks(folder):
            if journal.has(task, code) and not again:
                print(f"{run_line(task, None)}: there already", flush=True)
                continue
            if not is_warm:
                for quality in plan.qualities:
                    warm_up(folder, quality)
                is_warm = True
            outcome = _run(task, folder, plan, splat)
            journal.add(stamped(task, code, outcome))
            failed += "failed" in outcome
            print(run_line(task, outcome), flush=True)
    return failed


def _baselines(named: list[str] | None) -> list[str]:
    return [] if named is None else named or list(SURFACES)


class _Splat:
    """The splat that an object's baselines share, fitted when first asked for."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.file = plan.meshes / folder.name / "splat.ply"
        self._folder, self._plan = folder, plan
        self._outcome: Run | None = None

    def fitted(self) -> Run:
        if self._outcome is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._outcome = launch(
                "splat",
                self._plan.limit,
                folder=self._folder,
                seed=self._plan.seed,
                splat=self.file,
            )
        return self._outcome


def _run(task: Run, folder: Path, plan: Plan, splat: _Splat) -> Run:
    mesh = plan.mesh_file(task)
    mesh.parent.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {"folder": folder, "seed": task["seed"], "mesh": mesh}
    if task["method"] == "ours":
        given = {name: task[name] for name in ("quality", "interpolate")}
        outcome = launch("ours", plan.limit, **common, **given)
    else:
        before = splat.fitted() if task["method"] in NEED_SPLAT else None
        if before is not None and "failed" in before:
            return before
        outcome = launch("baseline", plan.limit, **common, method=task["method"], splat=splat.file)
        if before is not None and "wall_seconds" in outcome:
            outcome = with_splat(outcome, before)
    if plan.judge is not None and "scores" in outcome:
        try:
            outcome["judge"] = judged(plan.judge, mesh, folder)
        except RuntimeError as error:
            return {**outcome, "failed": str(error)}
    return outcome


def with_splat(outcome: Run, splat: Run) -> Run:
    """A baseline's figures with those of the splat that it started from."""
    return {
        **outcome,
        "seconds": {**splat["seconds"], **outcome["seconds"]},
        "wall_seconds": round(outcome["wall_seconds"] + splat["wall_seconds"], 2),
        "cpu_seconds": round(outcome["cpu_seconds"] + splat["cpu_seconds"], 2),
        "peak_memory_bytes": max(outcome["peak_memory_bytes"], splat["peak_memory_bytes"]),
    }


def _parse() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--quality", nargs="+", choices=QUALITIES, default=["standard"])
    parser.add_argument("--objects", type=names, metavar="A,B", help="only these")
    parser.add_argument(
        "--interpolate", nargs="+", type=int, metavar="M", help="numbers of in-between views"
    )
    parser.add_argument(
        "--baselines", nargs="*", choices=SURFACES, metavar="METHOD",
        help=f"also all of {', '.join(SURFACES)}, or those named",
    )  # fmt: skip
    parser.add_argument("--limit", type=float, default=1800, help="seconds that a run may take")
    parser.add_argument("--judge", type=Path, help="another scorer: JUDGE MESH.glb OBJECT_FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON of runs (and Markdown beside it)")
    parser.add_argument("--meshes", type=Path, help="where meshes go (outputs/reconstruction)")
    parser.add_argument("--again", action="store_true", help="also what was done before")
    return parser.parse_args()


if __name__ == "__main__":
    main()
