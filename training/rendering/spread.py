"""Share the objects of a dataset out: here, to processes of this machine, or to Ray's workers.

All three run `draw_object`, which decides a file's bytes by the object and the plan alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from hi3d_core.optional import MissingDependency

from .draw_object import draw_object
from .plan import Plan
from .sources import Task

ROOT = Path(__file__).resolve().parents[2]
_WAITING = 4  # tasks handed to Ray for each processor, so that none runs dry

Result = tuple[Task, str | None]
"""A task that is done, and what is wrong with its mesh, or None."""


def draw_here(tasks: list[Task], folder: Path, plan: Plan) -> Iterator[Result]:
    """One after the other, in this process."""
    for task in tasks:
        yield task, draw_object(task, folder, plan)


def draw_in_processes(
    tasks: list[Task], folder: Path, plan: Plan, workers: int
) -> Iterator[Result]:
    """In `workers` processes of this machine, in the order in which they come to an end.

    Raises BrokenProcessPool if one dies: run again to go on.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    # Not fork: neither graphics drivers nor numba's threads survive it.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(threads,)
    )
    try:
        futures = {pool.submit(draw_object, task, folder, plan): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def draw_by_ray(
    tasks: list[Task], folder: Path, plan: Plan, *, workers: int, address: str | None
) -> Iterator[Result]:
    """As Ray tasks: on `workers` processors of this machine, or on the cluster at `address`.

    A cluster's machines must see this code and the folder under the same paths. A task whose
    machine fails is done again elsewhere. Raises MissingDependency without Ray.
    """
    ray = _import_ray()
    options: dict[str, Any] = {"address": address} if address else {"num_cpus": workers}
    environment = {"PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if not address:
        options["include_dashboard"] = False
    ray.init(runtime_env={"env_vars": environment}, log_to_driver=False, **options)
    try:
        remote = ray.remote(max_retries=3)(draw_object)
        limit = max(1, int(ray.cluster_resources().get("CPU", 1))) * _WAITING
        todo = iter(tasks)
        running: dict[Any, Task] = {}
        while True:
            while len(running) < limit and (task := next(todo, None)) is not None:
                running[remote.remote(task, folder, plan)] = task
            if not running:
                return
            finished, _ = ray.wait(list(running))
            for reference in finished:
                yield running.pop(reference), ray.get(reference)
    finally:
        ray.shutdown()


def _start_worker(threads: int) -> None:
    import numba
    import torch

    numba.set_num_threads(min(threads, numba.get_num_threads()))
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker must not outlive a killed run: it would draw into what the next run draws."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports to its makers
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(
            f"--ray needs the package ray, which can't be imported ({error}): pip install ray. "
            "Without it, --workers uses the processors of one machine."
        ) from error
    return ray
