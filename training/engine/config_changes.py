"""What a resumed run has in other values than the run that it continues."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from .read_config import as_values

_NOTHING = "nothing"


def check_unchanged(before: Mapping[str, Any], settings: Any, allow_changed: bool) -> list[str]:
    """Refuse to go on with other settings than before; returns the changes that were allowed.

    before: `as_values` of the settings of the run that goes on. settings: those of now.
    allow_changed: let through changes of fields that say in their metadata that they may.

    Raises ValueError that lists every change.
    """
    changes = dict(_differences(before, as_values(settings)))
    free = set(_changeable(settings))
    lines = [f"{name}: {old} -> {new}" for name, (old, new) in changes.items()]
    bound = [line for name, line in zip(changes, lines, strict=True) if name not in free]
    if bound:
        raise ValueError(
            "the settings are not those of the run that shall go on; these must stay:\n  "
            + "\n  ".join(bound)
            + "\nchange them back, or start a new run in another folder"
        )
    if lines and not allow_changed:
        raise ValueError(
            "the settings are not those of the run that shall go on:\n  "
            + "\n  ".join(lines)
            + "\nchange them back, or give --allow-changed"
        )
    return lines


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], where: str = ""
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name in [*now, *(name for name in before if name not in now)]:
        old, new = before.get(name, _NOTHING), now.get(name, _NOTHING)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{where}{name}.")
        elif old != new:
            yield where + name, (old, new)


def _changeable(settings: Any, where: str = "") -> Iterator[str]:
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if dataclasses.is_dataclass(value):
            yield from _changeable(value, f"{where}{each.name}.")
        elif each.metadata.get("may_change", False):
            yield where + each.name
