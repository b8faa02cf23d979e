"""From each object's record to the tables that people read."""

from __future__ import annotations

import math
import statistics
from typing import Any

from .rows import title_of

Records = dict[str, dict[str, Any]]

_DIGITS = {"psnr": 2, "ssim": 3, "perceptual": 3, "chamfer": 4, "iou": 3}


def summary(objects: Records, rows: list[str]) -> dict[str, Any]:
    """Means over objects and their standard errors, by row and by check; plain values."""
    usable = [record for record in objects.values() if "rows" in record]
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        records = [record["rows"][row] for record in usable if row in record["rows"]]
        table[row] = {key: _mean([each[key] for each in records if key in each]) for key in _DIGITS}
        table[row]["meshes_failed"] = sum("failed" in each for each in records)
    checks: dict[str, Any] = {}
    elevation = [record["elevation_check"] for record in usable if "elevation_check" in record]
    if elevation:
        checks["elevation"] = {
            "true": _mean([each["true"] for each in elevation]),
            "wrong": _mean([each["wrong"] for each in elevation]),
            "better_when_true": sum(each["true"] > each["wrong"] for each in elevation),
            "objects": len(elevation),
        }
    varied = [record["diversity"] for record in usable if "diversity" in record]
    if varied:
        checks["diversity"] = {
            part: _mean([each[part] for each in varied]) for part in ("back", "beside_front")
        }
    skipped = {name: each["skipped"] for name, each in objects.items() if "skipped" in each}
    return {"objects": len(usable), "skipped": skipped, "rows": table, "checks": checks}


def markdown(told: dict[str, Any], settings: dict[str, Any]) -> str:
    """The summary as a table, with what was measured above it and the checks below."""
    learned = settings.get("perceptual")
    heads = ["", "PSNR, dB", "SSIM", *([learned] if learned else []), "Chamfer", "IoU"]
    keys = ["psnr", "ssim", *(["perceptual"] if learned else []), "chamfer", "iou"]
    lines = [
        f"{told['objects']} objects of {settings['source']}, frames of {settings['size']} pixels, "
        "frame 0 left out; means ± standard errors over objects.",
        "",
        "| " + " | ".join(heads) + " |",
        "| " + " | ".join("---" for _ in heads) + " |",
    ]
    for row, scores in told["rows"].items():
        cells = [title_of(row), *(_cell(scores[key], _DIGITS[key]) for key in keys)]
        if scores["meshes_failed"]:
            cells[0] += f" ({scores['meshes_failed']} without a mesh)"
        lines.append("| " + " | ".join(cells) + " |")
    elevation, varied = (told["checks"].get(name) for name in ("elevation", "diversity"))
    if elevation:
        lines += [
            "",
            f"Told the true elevation, the orbit has {_cell(elevation['true'], 2)} dB; told one "
            f"that is 20 degrees off, {_cell(elevation['wrong'], 2)} dB. The true one was better "
            f"for {elevation['better_when_true']} of {elevation['objects']} objects.",
        ]
    if varied:
        lines += [
            "",
            f"Over {settings['seeds']} seeds backs vary by {_cell(varied['back'], 1)} levels of 255"
            f" (standard deviation), views beside the front by {_cell(varied['beside_front'], 1)}.",
        ]
    if told["skipped"]:
        named = ", ".join(told["skipped"])
        lines += ["", f"{len(told['skipped'])} objects could not be used: {named}."]
    return "\n".join(lines) + "\n"


def _mean(values: list[float]) -> dict[str, float] | None:
    """The mean, its standard error (0 for one value) and of how many; None of none."""
    if not values:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "error": error, "count": len(values)}


def _cell(value: dict[str, float] | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value['mean']:.{digits}f} ± {value['error']:.{digits}f}"
