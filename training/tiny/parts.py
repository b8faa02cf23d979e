"""A state folder as files of limited size, to be carried where large files can't go."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hi3d_core.atomic_file import replacing

LARGEST = 15_000_000  # bytes of a part
_LIST = "parts.json"
_MADE_AGAIN = (
    "data",
    "fronts",
    "latents",
    "coarse",
    "told",
)  # from the rest, to the same bits on the same machine


def split(state: Path, parts: Path) -> int:
    """Cut the state's files into parts; returns how many. What can be made again is left out.

    Raises ValueError for a folder of parts that is not empty.
    """
    parts.mkdir(parents=True, exist_ok=True)
    if any(parts.iterdir()):
        raise ValueError(f"{parts} is not empty: name another folder")
    told, count = [], 0
    for file in sorted(path for path in state.rglob("*") if path.is_file()):
        name = file.relative_to(state)
        if name.parts[0] in _MADE_AGAIN:
            continue
        pieces = []
        with file.open("rb") as source:
            while True:
                piece = source.read(LARGEST)
                if not piece and pieces:
                    break
                part = f"{count:05d}.part"
                (parts / part).write_bytes(piece)
                pieces.append({"part": part, "sha256": hashlib.sha256(piece).hexdigest()})
                count += 1
        told.append({"file": name.as_posix(), "pieces": pieces})
    (parts / _LIST).write_text(json.dumps(told, indent=1), encoding="utf-8")
    return count


def join(parts: Path, state: Path) -> int:
    """Put a state together; returns how many files. Raises ValueError for damaged parts."""
    told = json.loads((parts / _LIST).read_text(encoding="utf-8"))
    for entry in told:
        target = (state / entry["file"]).resolve()
        if not target.is_relative_to(state.resolve()):
            raise ValueError(f"{parts / _LIST} names {entry['file']}, which lies elsewhere")
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary, temporary.open("wb") as file:
            for piece in entry["pieces"]:
                content = (parts / piece["part"]).read_bytes()
                if hashlib.sha256(content).hexdigest() != piece["sha256"]:
                    raise ValueError(f"{parts / piece['part']} is damaged: copy it again")
                file.write(content)
    return len(told)
