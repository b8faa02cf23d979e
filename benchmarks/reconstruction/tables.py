"""Markdown tables of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .journal import Run

# Objects whose mean is asked for by itself, shown where all of a group's are in the runs.
GROUPS = {
    "mean": (),
    "mean of the six": (
        "cc0_bread",
        "cc0_stoneLantern",
        "ccby_horse",
        "scopia_cat",
        "scopia_old_jar",
        "scopia_teapot",
    ),
    "mean of the solids": ("cc0_bread", "cc0_stoneLantern", "ccby_horse", "scopia_cat"),
}
METHODS = {
    "ours": "ours",
    "hull": "visual hull",
    "tsdf": "TSDF of splat depths",
    "poisson": "screened Poisson of hull points",
    "node": "ComfyUI's Extract Mesh from Splat",
}

Cell = Callable[[Run], float]
# Heading, where the figure is, how it is written.
COLUMNS: tuple[tuple[str, Cell, str], ...] = (
    ("visible chamfer", lambda run: run["scores"]["visible_chamfer"], ".5f"),
    ("chamfer", lambda run: run["scores"]["chamfer"], ".5f"),
    ("IoU", lambda run: run["scores"]["iou"], ".3f"),
    ("PSNR", lambda run: run["scores"]["psnr"], ".2f"),
    ("SSIM", lambda run: run["scores"]["ssim"], ".4f"),
    ("normals", lambda run: run["scores"]["normal_consistency"], ".4f"),
    ("faces", lambda run: run["scores"]["faces"], ",.0f"),
    ("seconds", lambda run: run["wall_seconds"], ".1f"),
    ("CPU s", lambda run: run["cpu_seconds"], ".1f"),
    ("peak GiB", lambda run: run["peak_memory_bytes"] / 2**30, ".2f"),
)


def method_title(task: Run) -> str:
    """What a method is called in a table, with its settings."""
    title = METHODS.get(task["method"]) or str(task["method"])
    if task["method"] == "ours":
        title += f", {task['quality']}, M = {task['interpolate']}"
    return title


def run_line(task: Run, outcome: Run | None) -> str:
    """One line on the console about a run, or about a task alone."""
    line = f"{task['object']}, {method_title(task)}"
    if outcome is None:
        return line
    for problem in ("failed", "skipped"):
        if problem in outcome:
            return f"{line}: {problem}: {outcome[problem]}"
    figures = ", ".join(f"{name} {cell(outcome):{form}}" for name, cell, form in COLUMNS)
    return f"{line}: {figures}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the rest are numbers."""
    lines = [
        "| " + " | ".join(head) + " |",
        "| --- |" + " ---: |" * (len(head) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def reconstruction_tables(runs: Sequence[Run]) -> str:
    """For each method: a table of its objects and means, and one of seconds by stage."""
    parts = []
    for title, group in by_method(runs).items():
        done = [run for run in group if "scores" in run and "failed" not in run]
        parts.append(f"### {title}\n")
        for problem in ("skipped", "failed"):
            parts += [
                f"{run['task']['object']}: {problem}: {run[problem]}\n"
                for run in group
                if problem in run
            ]
        if done:
            parts += [_score_table(done), _stage_table(done)]
            if any("judge" in run for run in done):
                parts.append(judge_table(done))
    return "\n".join(parts)


def by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by `method_title`: ours first, qualities and then M in order."""
    order = [*METHODS]
    qualities = ["preview", "standard", "high"]

    def place(run: Run) -> tuple[int, int, int]:
        task = run["task"]
        quality = task.get("quality", "")
        return (
            order.index(task["method"]) if task["method"] in order else len(order),
            qualities.index(quality) if quality in qualities else len(qualities),
            task.get("interpolate", 0),
        )

    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=place):
        groups.setdefault(method_title(run["task"]), []).append(run)
    return groups


def group_means(runs: Sequence[Run], cell: Cell) -> dict[str, float]:
    """Means of a figure over the groups of `GROUPS` that are whole, by their names."""
    values = {run["task"]["object"]: cell(run) for run in runs}
    means = {}
    for name, members in GROUPS.items():
        chosen = members or tuple(values)
        if all(member in values for member in chosen) and len(values) > 1:
            means[name] = sum(values[member] for member in chosen) / len(chosen)
    return means


def _score_table(runs: Sequence[Run]) -> str:
    rows = [
        [run["task"]["object"], *(f"{cell(run):{form}}" for _, cell, form in COLUMNS)]
        for run in runs
    ]
    means = [group_means(runs, cell) for _, cell, _ in COLUMNS]
    for name in means[0]:
        figures = [
            f"**{each[name]:{form}}**" for each, (_, _, form) in zip(means, COLUMNS, strict=True)
        ]
        rows.append([f"**{name}**", *figures])
    return markdown_table(["object", *(title for title, _, _ in COLUMNS)], rows)


def _stage_table(runs: Sequence[Run]) -> str:
    stages = list(dict.fromkeys(stage for run in runs for stage in run["seconds"]))
    rows = [
        [run["task"]["object"], *(_seconds(run["seconds"].get(stage)) for stage in stages)]
        for run in runs
    ]
    if len(runs) > 1:
        sums = [sum(run["seconds"].get(stage, 0.0) for run in runs) for stage in stages]
        rows.append(["**mean**", *(f"**{total / len(runs):.1f}**" for total in sums)])
    return markdown_table(["seconds by stage", *stages], rows)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def judge_table(runs: Sequence[Run]) -> str:
    """What another scorer says of the same meshes, and how far ours is from it."""
    names = {"visible_chamfer": ".5f", "chamfer": ".5f", "iou": ".4f", "psnr": ".2f"}
    rows = []
    for run in runs:
        theirs: dict[str, Any] = run.get("judge", {})
        if theirs:
            cells = [
                f"{theirs[name]:{form}} ({run['scores'][name] - theirs[name]:+{form}})"
                for name, form in names.items()
            ]
            rows.append([run["task"]["object"], *cells])
    return markdown_table(["the judge's (ours minus its)", *names], rows)
