"""From TOML to frozen dataclasses: unknown keys and wrong types are errors, never ignored."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Settings = TypeVar("Settings")


def read_config(path: str | Path, kind: type[Settings], overrides: Sequence[str] = ()) -> Settings:
    """Read a TOML file into a dataclass; tables become the dataclasses among its fields.

    overrides: "train.steps=100", the value as TOML has it, instead of the file's.

    Raises ValueError, naming file and key, for text that is no TOML, keys that the class does not
    have (with the nearest one that it has), keys that it needs, and values of another type.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}): check the name") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    for override in overrides:
        _override(values, override)
    try:
        return from_values(kind, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def from_values(kind: type[Settings], values: Mapping[str, Any], where: str = "") -> Settings:
    """Make a dataclass of a table's values; where: the table's name and a dot, for messages."""
    known = {each.name: each for each in dataclasses.fields(kind) if each.init}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise ValueError(
                f"unknown key {where}{name}, the nearest known one is {where}{near[0]} "
                f"(of {', '.join(known)})"
                if near
                else f"unknown key {where}{name}: nothing is known there"
            )
    hints = typing.get_type_hints(kind)
    missing = [
        f"{where}{name}"
        for name, each in known.items()
        if name not in values
        and each.default is dataclasses.MISSING
        and each.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    return kind(**{name: _fit(value, hints[name], where + name) for name, value in values.items()})


def as_values(settings: Any) -> dict[str, Any]:
    """A dataclass of settings as JSON can hold it: tuples as lists, paths as text."""
    return {
        each.name: _plain(getattr(settings, each.name)) for each in dataclasses.fields(settings)
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return as_values(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _override(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    *tables, key = name.strip().split(".")
    try:
        if not equals:
            raise ValueError("no equals sign")
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError as error:
        raise ValueError(
            f"--set {override} can't be read ({error}): write table.key=value, text in quotes"
        ) from error
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ValueError(f"--set {override}: {table} is a value, not a table")
    values[key] = value


def _fit(value: Any, hint: Any, where: str) -> Any:
    """The value as the hint wants it, or ValueError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_values(hint, value, f"{where}.")  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return _fit(value, option, where)
            except ValueError as error:
                problem = error
        raise problem
    if origin is Literal and any(value == each and type(value) is type(each) for each in arguments):
        return value
    if origin is tuple and isinstance(value, list | tuple):
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(kinds) == len(value):
            pairs = zip(value, kinds, strict=True)
            return tuple(_fit(each, each_kind, where) for each, each_kind in pairs)
    if hint is float and type(value) is int:
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and not dataclasses.is_dataclass(hint) and type(value) is hint:
        return value
    raise ValueError(f"{where} is {value!r}, expected {_words(hint)}")


def _words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if dataclasses.is_dataclass(hint):
        return "a table"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes"}
    names[Path] = "a path in quotes"
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if kinds[1:] == (...,):
            return f"a list, each {_words(kinds[0])}"
        return f"a list of {len(kinds)}, each {_words(kinds[0])}"
    return names.get(hint, str(hint))
