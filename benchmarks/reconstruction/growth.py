"""Tables of how cost grows, of in-between views, and of what they do for the mesh."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .journal import Run
from .tables import COLUMNS, GROUPS, group_means, markdown_table

_AXES = {
    "views": "views (512² pictures, 128 nodes)",
    "pixels": "pixels along a side (16 views, 128 nodes)",
    "nodes": "grid nodes on the longest side (16 views, 512² pictures)",
}
# Stages that take less than this at every size are left without an exponent: it would be noise.
_WORTH_FITTING = 0.3  # seconds


def growth_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The b of seconds ~ sizes^b by least squares on logarithms: 1 for linear growth.

    Raises ValueError for fewer than two different sizes or values that are not positive.
    """
    if len(set(sizes)) < 2 or min(*sizes, *seconds) <= 0:
        raise ValueError("an exponent needs two different sizes and positive figures")
    x, y = [math.log(each) for each in sizes], [math.log(each) for each in seconds]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return slope / sum((a - middle_x) ** 2 for a in x)


def cost_tables(runs: Sequence[Run]) -> str:
    """Seconds by stage along each axis of `bench_cost.py`, with growth exponents.

    Views count as themselves, pixels as their number (side squared), nodes as the surface's
    area in voxels.
    """
    done = [run for run in runs if "failed" not in run]
    usual = {axis: _most_common([run["task"][axis] for run in done]) for axis in _AXES if done}
    parts = []
    for axis, title in _AXES.items():
        others = [other for other in _AXES if other != axis]
        line = [run for run in done if all(run["task"][other] == usual[other] for other in others)]
        line.sort(key=lambda run: run["task"][axis])
        if len({run["task"][axis] for run in line}) > 1:
            parts.append(_cost_table(axis, title, line))
    return "\n".join(parts)


def _most_common(values: Sequence[int]) -> int:
    return max(set(values), key=values.count)


def size_of(axis: str, run: Run) -> float:
    """What the cost along an axis is held against."""
    if axis == "nodes":
        return float(run["surface_voxels"])
    value = float(run["task"][axis])
    return value**2 if axis == "pixels" else value


def _cost_table(axis: str, title: str, runs: Sequence[Run]) -> str:
    stages = list(dict.fromkeys(stage for run in runs for stage in run["seconds"]))
    sizes = [size_of(axis, run) for run in runs]
    columns = {stage: [run["seconds"].get(stage, 0.0) for run in runs] for stage in stages}
    columns["all"] = [run["wall_seconds"] for run in runs]
    columns["CPU s"] = [run["cpu_seconds"] for run in runs]
    memory = [run["peak_memory_bytes"] / 2**30 for run in runs]
    head = [title, *(["area, voxels"] if axis == "nodes" else []), *columns, "peak GiB"]
    rows = []
    for index, run in enumerate(runs):
        area = [f"{run['surface_voxels']:,}"] if axis == "nodes" else []
        figures = [f"{values[index]:.2f}" for values in columns.values()]
        rows.append([str(run["task"][axis]), *area, *figures, f"{memory[index]:.2f}"])
    exponents = [
        f"**{growth_exponent(sizes, values):.2f}**" if min(values) > 0
        and max(values) >= _WORTH_FITTING else ""
        for values in columns.values()
    ]  # fmt: skip
    of = {"views": "views", "pixels": "pixels", "nodes": "area"}[axis]
    area = [""] if axis == "nodes" else []
    rows.append([f"**exponent over {of}**", *area, *exponents, ""])
    return markdown_table(head, rows)


def interpolation_table(runs: Sequence[Run]) -> str:
    """PSNR of in-between views and seconds of the fit, by quality."""
    done = [run for run in runs if "psnr" in run]
    head = ["in-between views", "quality", "PSNR", "worst view", "at input views", "seconds"]
    rows = [
        [
            run["task"]["object"],
            run["task"]["quality"],
            *(f"{run[name]:.2f}" for name in ("psnr", "psnr_worst", "psnr_at_input")),
            f"{run['seconds']['splat']:.1f}",
        ]
        for run in done
    ]
    for quality in dict.fromkeys(run["task"]["quality"] for run in done):
        group = [run for run in done if run["task"]["quality"] == quality]
        if len(group) > 1:
            means = [
                sum(run[name] for run in group) / len(group)
                for name in ("psnr", "psnr_worst", "psnr_at_input")
            ]
            seconds = sum(run["seconds"]["splat"] for run in group) / len(group)
            figures = [f"**{mean:.2f}**" for mean in means]
            rows.append(["**mean**", quality, *figures, f"**{seconds:.1f}**"])
    return markdown_table(head, rows)


def ablation_table(runs: Sequence[Run]) -> str:
    """Means of our runs by the number M of in-between views, for each quality with several.

    Only objects that were done with every M count, so that the means can be compared. Empty if
    there is only one M.
    """
    ours = [run for run in runs if run["task"].get("method") == "ours" and "scores" in run]
    rows = []
    for quality in dict.fromkeys(run["task"]["quality"] for run in ours):
        group = [run for run in ours if run["task"]["quality"] == quality]
        counts = sorted({run["task"]["interpolate"] for run in group})
        by_count = {
            count: {
                run["task"]["object"]: run for run in group if run["task"]["interpolate"] == count
            }
            for count in counts
        }
        shared = set.intersection(*(set(each) for each in by_count.values()))
        if len(counts) < 2 or not shared:
            continue
        names = sorted(shared)
        for count, each in by_count.items():
            row = [f"{quality}, M = {count}", str(len(names))]
            for title, cell, form in COLUMNS:
                if title in _ABLATED:
                    row.append(f"{sum(cell(each[name]) for name in names) / len(names):{form}}")
            solids = [name for name in names if name in GROUPS["mean of the solids"]]
            iou = [each[name]["scores"]["iou"] for name in solids]
            row.append(f"{sum(iou) / len(iou):.3f}" if iou else "")
            rows.append(row)
    if not rows:
        return ""
    return markdown_table(["in-between views", "objects", *_ABLATED, "IoU of solids"], rows)


_ABLATED = ("visible chamfer", "IoU", "PSNR", "normals", "seconds")


def method_means(groups: dict[str, list[Run]], group: str = "mean") -> str:
    """One line a method: the means over one of `GROUPS`, over objects that all methods have."""
    done = {
        title: {run["task"]["object"]: run for run in runs if "scores" in run}
        for title, runs in groups.items()
    }
    done = {title: runs for title, runs in done.items() if runs}
    if not done:
        return ""
    widest = max(len(runs) for runs in done.values())
    whole = {title: list(runs.values()) for title, runs in done.items() if len(runs) == widest}
    rows = []
    for title, runs in whole.items():
        cells = []
        for _, cell, form in COLUMNS:
            mean = group_means(runs, cell).get(group)
            if mean is None:
                if group != "mean" or len(runs) > 1:
                    break
                mean = cell(runs[0])
            cells.append(f"{mean:{form}}")
        else:
            rows.append([title, str(len(GROUPS[group]) or len(runs)), *cells])
    if not rows:
        return ""
    return markdown_table([group, "objects", *(name for name, _, _ in COLUMNS)], rows)
