"""Results that grow object by object and outlive a killed run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hi3d_core.atomic_file import replacing


class Journal:
    """results.json: the settings, and each object's record.

    Raises ValueError if the file was made with other settings, or is none.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.objects: dict[str, dict[str, Any]] = {}
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        if not path.exists():
            return
        try:
            kept = json.loads(path.read_text("utf-8"))
            earlier, self.objects = dict(kept["settings"]), dict(kept["objects"])
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"{path} is not of this command's making, or damaged ({error}): choose another "
                "folder"
            ) from error
        differences = [
            f"{name} was {earlier.get(name)}, now {value}"
            for name, value in self.settings.items()
            if earlier.get(name) != value
        ]
        if differences:
            raise ValueError(
                f"{path} was measured otherwise: {'; '.join(differences)}. Give the same settings "
                "or choose another folder"
            )

    def add(self, name: str, record: dict[str, Any]) -> None:
        """Keep an object's record, on disk before this returns."""
        self.objects[name] = record
        with replacing(self.path) as temporary:
            text = json.dumps({"settings": self.settings, "objects": self.objects}, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
