"""Meshes, or toys, into orbits as training reads them: six rings of 16 RGBA pictures an object.

    python training/render_dataset.py models/ --out datasets/mine --workers 8
    python training/render_dataset.py toys:0-999 --out datasets/toys --size 256
    python training/render_dataset.py models/ --out datasets/mine --ray --address auto --shards 100

The object's longest side becomes 1 and its middle the origin; cameras stand 1.5 away with a field
of view of 49.134 degrees. Elevations are -10, 0, 10, 20, 30, 40 degrees, frame n of a folder
belongs to elevation n // 16 and azimuth 22.5 * (n % 16) degrees, counter-clockwise from the
front. Depths, normals and cameras lie beside. Broken meshes are skipped and listed in
skipped.json. The command may be stopped at any time and given again: it goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # when it is run as a script
    sys.path.insert(0, str(ROOT))

from tqdm import tqdm  # noqa: E402

import hi3d_core.patient_threads  # noqa: E402, F401
from hi3d_core.optional import MissingDependency  # noqa: E402
from hi3d_core.render import SHADINGS  # noqa: E402
from training.rendering.plan import OFFICIAL_ELEVATIONS, Plan, toy_spacing  # noqa: E402
from training.rendering.renderers import NAMES, choose_renderer  # noqa: E402
from training.rendering.shards import write_shards  # noqa: E402
from training.rendering.sources import Task, find_tasks  # noqa: E402
from training.rendering.spread import (  # noqa: E402
    Result,
    draw_by_ray,
    draw_here,
    draw_in_processes,
)
from training.rendering.store import Store, open_store  # noqa: E402


def render_dataset(
    source: str,
    out: Path,
    plan: Plan,
    *,
    workers: int = 1,
    ray: bool = False,
    address: str | None = None,
    objects_a_shard: int | None = None,
) -> tuple[int, dict[str, str]]:
    """Draw all objects of a source that are not yet in the folder.

    source, out, plan: see `find_tasks`, `open_store`, `Plan`. workers: processes of this machine.
    ray: let Ray share the work out, on a cluster if an address is given.
    objects_a_shard: pack WebDataset shards too.

    Returns how many objects are finished, and what is wrong with the others, by name.
    Raises ValueError for bad input, also if not one object could be drawn; MissingDependency.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1")
    if objects_a_shard is not None and objects_a_shard < 1:
        raise ValueError(f"{objects_a_shard} objects a shard, expected at least 1")
    if address and not ray:
        raise ValueError("an address is Ray's: give --ray with it")
    tasks = [_absolute(task) for task in find_tasks(source)]
    store = open_store(out.resolve(), plan)
    with store.locked():
        todo = [task for task in tasks if not store.is_finished(task)]
        reasons = _draw(store, todo, plan, workers, ray, address)
        store.write_skipped(tasks, reasons)
        store.close()
        finished = [task.name for task in tasks if task.name not in reasons]
        if not finished:
            first = next(iter(reasons.values()))
            raise ValueError(
                f"none of the {len(tasks)} objects of {source} could be drawn; the first: {first}. "
                f"All reasons are in {out / 'skipped.json'}"
            )
        if objects_a_shard is not None:
            write_shards(store, finished, objects_a_shard)
        return len(finished), reasons


def _draw(
    store: Store, todo: list[Task], plan: Plan, workers: int, ray: bool, address: str | None
) -> dict[str, str]:
    results: Iterator[Result]
    if not todo:
        return {}
    if ray:
        results = draw_by_ray(todo, store.path, plan, workers=workers, address=address)
    elif workers > 1:
        results = draw_in_processes(todo, store.path, plan, workers)
    else:
        results = draw_here(todo, store.path, plan)
    reasons: dict[str, str] = {}
    for task, reason in tqdm(results, total=len(todo), desc="render", unit="object"):
        if reason is not None:
            tqdm.write(f"skipped {task.source}: {reason}")
            reasons[task.name] = reason
            store.write_skipped(todo, reasons)  # known even if this run is killed
    return reasons


def _absolute(task: Task) -> Task:
    if task.path is None:
        return task
    return Task(task.name, task.source, task.path.resolve())


def _elevations(text: str) -> tuple[float, ...] | None:
    if text == "official":
        return OFFICIAL_ELEVATIONS
    if text == "random":
        return None
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"--elevations is {text!r}, expected official, random, or degrees as in "
            "--elevations=-10,0,30"
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="a folder of .glb .gltf .obj .ply files, or toys:0-999")
    parser.add_argument("--out", required=True, type=Path, help="the dataset's folder")
    parser.add_argument("--size", type=int, default=1024, help="pixels a side")
    parser.add_argument(
        "--elevations",
        default="official",
        help="official (six rings), random (one ring an object, -10 to 40 degrees), or a list: "
        "--elevations=-10,0,30",
    )
    parser.add_argument("--renderer", default="auto", help=f"auto, {', '.join(NAMES)}")
    parser.add_argument(
        "--shading", choices=SHADINGS, default="unlit", help="soft: lit, for meshes without colours"
    )
    parser.add_argument("--supersample", type=int, default=3, help="points a pixel on each axis")
    parser.add_argument("--no-geometry", action="store_true", help="no depths and normals")
    parser.add_argument("--seed", type=int, default=0, help="of random elevations")
    parser.add_argument("--workers", type=int, default=1, help="processes of this machine")
    parser.add_argument("--ray", action="store_true", help="let Ray share the work out")
    parser.add_argument("--address", help="of a Ray cluster (auto: the one that runs here)")
    parser.add_argument(
        "--shards", type=int, metavar="N", help="WebDataset tar files too, N objects in each"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command; bad input ends it with a sentence."""
    given = _parser().parse_args(arguments)
    try:
        elevations = _elevations(given.elevations)
        find_tasks(given.source)  # before a driver is opened
        plan = Plan(
            elevations=elevations,
            size=given.size,
            renderer=choose_renderer(given.renderer),
            shading=given.shading,
            supersample=given.supersample,
            seed=given.seed,
            geometry=not given.no_geometry,
            toy_spacing=toy_spacing(given.size),
        )
        finished, reasons = render_dataset(
            given.source,
            given.out,
            plan,
            workers=given.workers,
            ray=given.ray,
            address=given.address,
            objects_a_shard=given.shards,
        )
    except (ValueError, MissingDependency, OSError) as error:  # OSError: such as a full disk
        sys.exit(f"error: {error}")
    print(f"{finished} objects in {given.out} (renderer: {plan.renderer})")
    if reasons:
        print(f"{len(reasons)} broken ones were skipped, see {given.out / 'skipped.json'}")


if __name__ == "__main__":
    main()
