"""The command line, one command a file; each has `add_arguments` and `run`."""

from __future__ import annotations

from types import ModuleType

from . import convert, evaluate, generate, info, reconstruct, render

COMMANDS: dict[str, ModuleType] = {
    "generate": generate,
    "convert": convert,
    "reconstruct": reconstruct,
    "render": render,
    "evaluate": evaluate,
    "info": info,
}
