"""Where weights are looked for, and what is said when they are missing. Nothing is downloaded.

A small model of both stages, hi3d-tiny, lies in the package. It is used where neither stage's
weights are named or found, and by its name; never one of its stages with one of another model,
unless both are named.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..model_defaults import Stage

WeightsKind = Literal["orbit", "refiner", "image_encoder", "depth"]

BUNDLED_NAME = "hi3d-tiny"
BUNDLED_FOLDER = Path(__file__).parents[1] / "models" / "tiny"

FOLDER_VARIABLE = "HI3D_MODELS"
DEFAULT_FOLDER = Path("models") / "hi3d"


@dataclass(frozen=True)
class ModelFile:
    """One model that the user must bring.

    title: what it is. names: file and folder names that are looked for, best first.
    size: of the download, in words. source: where the authors offer it.
    """

    title: str
    names: tuple[str, ...]
    size: str
    source: str


# Sources: the README of github.com/yanghb22-fdu/Hi3D-Official and its issue 5; the releases of
# github.com/isl-org/MiDaS; Hugging Face. Sizes: parameters times bytes, where not stated there.
MODEL_FILES: dict[WeightsKind, ModelFile] = {
    "orbit": ModelFile(
        "the orbit model (Hi3D, first stage)",
        ("hi3d_orbit.safetensors", "first_stage.safetensors", "first_stage.pt"),
        "2.7 billion numbers: about 5.4 GB in half precision, 10.9 GB in single",
        "linked in the README of https://github.com/yanghb22-fdu/Hi3D-Official (Google Drive)",
    ),
    "refiner": ModelFile(
        "the refiner (Hi3D, second stage)",
        ("hi3d_refiner.safetensors", "second_stage.safetensors", "second_stage.pt"),
        "2.5 billion numbers: about 5.0 GB in half precision, 10.0 GB in single",
        "https://huggingface.co/hbyang/Hi3D, file second_stage.pt",
    ),
    "image_encoder": ModelFile(
        "the image encoder (OpenCLIP ViT-H/14, laion2b_s32b_b79k)",
        (
            "hi3d_image_encoder.safetensors",
            "open_clip_pytorch_model.safetensors",
            "open_clip_pytorch_model.bin",
            "image_encoder",
        ),
        "3.9 GB; the folder image_encoder 2.5 GB, or 1.3 GB in half precision",
        "https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K, or the folder image_encoder "
        "of https://huggingface.co/stabilityai/stable-video-diffusion-img2vid-xt",
    ),
    "depth": ModelFile(
        "the depth network (DPT-hybrid, MiDaS 3.0)",
        (
            "hi3d_depth.safetensors",
            "dpt_hybrid_384.pt",
            "dpt_hybrid-midas-501f0c75.pt",
            "dpt-hybrid-midas",
        ),
        "0.49 GB",
        "https://github.com/isl-org/MiDaS/releases/download/v3/dpt_hybrid_384.pt; also in "
        "ckpts.zip of https://huggingface.co/hbyang/Hi3D; or https://huggingface.co/Intel/dpt-hybrid-midas",
    ),
}

WHAT_THE_SMALL_MODEL_IS = (
    f"{BUNDLED_NAME}, the small model in the package, paints: an orbit of 128 pixels, refined to "
    "256, in minutes on a CPU. It was trained on toys that are made up on the spot; of other "
    "objects it gives no more than a coarse guess. The authors' weights paint photos: "
    f"{MODEL_FILES['orbit'].names[-1]} is {MODEL_FILES['orbit'].source}, "
    f"{MODEL_FILES['refiner'].names[-1]} is at {MODEL_FILES['refiner'].source}; put both into "
    "models/hi3d"
)
_BOTH: tuple[Stage, Stage] = ("orbit", "refiner")
_ONE_STAGE_ALONE = (
    "The small model in the package does not stand in for one stage alone: leave the refiner out "
    f"(--no-refine, or refine: off) if you have an orbit model, or name {BUNDLED_NAME} for both "
    "stages"
)


def find_weights(
    kind: WeightsKind,
    given: str | Path | None = None,
    folders: Sequence[str | Path] = (),
    *,
    beside: str | Path | None = None,
) -> Path:
    """Where the weights of a kind are: a file, or a folder with a checkpoint in it.

    given: what the user named; nothing else is looked at then. A folder that holds a file of one of
    the usual names stands for that file, and "hi3d-tiny" for the small model in the package.
    folders, beside: what is searched, see `search_folders`.

    Raises ValueError if `given` does not exist, or if nothing is found: the message says which
    names were looked for, where, how large they are and who offers them.
    """
    model = MODEL_FILES[kind]
    if given is not None:
        given = Path(given).expanduser()
        bundled = bundled_weights(kind) if str(given) == BUNDLED_NAME else None
        if bundled is not None and not given.exists():
            return bundled
        if not given.exists():
            raise ValueError(f"{given} does not exist: name {model.title}. {_where_from(model)}")
        return _named_in(given, model) or given
    searched = search_folders(folders, beside)
    for folder in searched:
        found = _named_in(folder, model)
        if found is not None:
            return found
    raise ValueError(
        f"{model.title} was not found: none of {', '.join(model.names)} lies in "
        f"{', '.join(str(folder) for folder in searched)}. {_where_from(model)} Put it there, or "
        f"set {FOLDER_VARIABLE} to its folder"
    )


def find_stages(
    stages: Sequence[Stage],
    given: Mapping[Stage, str | Path | None],
    folders: Sequence[str | Path] = (),
) -> dict[Stage, Path]:
    """Where the weights of all the stages that a run needs are: of one model.

    given: what the user named, by stage, the needed ones and others. folders: as for
    `find_weights`. Where none of the needed stages is named or found, the small model in the
    package stands in; where it is named for one stage, it is also meant for one that is not named.

    Raises ValueError that tells of all stages that are missing, not one.
    """
    found: dict[Stage, Path] = {}
    problems: list[str] = []
    named_bundled = any(str(each) == BUNDLED_NAME for each in given.values())
    for stage in stages:
        named = given.get(stage) or (BUNDLED_NAME if named_bundled else None)
        try:
            found[stage] = find_weights(stage, named, folders)
        except ValueError as error:
            problems.append(str(error))
    if not problems:
        return found
    bundled = {stage: bundled_weights(stage) for stage in stages}
    is_there = all(path is not None for path in bundled.values())
    if is_there and not found and not any(given.get(stage) for stage in stages):
        return {stage: path for stage, path in bundled.items() if path is not None}
    if is_there and len(stages) > 1:
        problems.append(_ONE_STAGE_ALONE)
    raise ValueError("\n".join(problems))


def find_stage(
    stage: Stage, given: Mapping[Stage, str | Path | None], folders: Sequence[str | Path] = ()
) -> Path:
    """One stage's weights, where both are of one model and it isn't known yet which are needed.

    As `find_stages`; the other stage may be missing, unless the small model would have to stand in
    for this one alone.
    """
    try:
        return find_stages(_BOTH, given, folders)[stage]
    except ValueError as error:
        try:
            return find_weights(stage, given.get(stage), folders)
        except ValueError:
            raise error from None


def bundled_weights(kind: WeightsKind) -> Path | None:
    """The small model's file of a stage, if it is there; None for what is no stage."""
    path = BUNDLED_FOLDER / f"{kind}.safetensors"
    return path if kind in ("orbit", "refiner") and path.is_file() else None


def is_bundled(path: Path) -> bool:
    """Whether this is a file of the small model in the package."""
    return path.parent == BUNDLED_FOLDER


def search_folders(
    folders: Sequence[str | Path] = (), beside: str | Path | None = None
) -> list[Path]:
    """The folders that are searched, first to last, without repeats.

    `folders`; those in the environment variable HI3D_MODELS (several as in PATH); models/hi3d in
    the working directory; and the folder of the file `beside`, if another model was named.
    """
    found = [Path(folder).expanduser() for folder in folders]
    stated = os.environ.get(FOLDER_VARIABLE, "").split(os.pathsep)
    found += [Path(folder).expanduser() for folder in stated if folder]
    found.append(DEFAULT_FOLDER)
    if beside is not None:
        beside = Path(beside).expanduser()
        found.append(beside if beside.is_dir() else beside.parent)
    return list(dict.fromkeys(found))


def describe() -> list[str]:
    """A line for each model: where it was found, or what is missing."""
    lines = []
    for kind, model in MODEL_FILES.items():
        try:
            lines.append(f"{model.title}: {find_weights(kind)}")
        except ValueError:
            instead = f", {BUNDLED_NAME} stands in" if _stands_in(kind) else ""
            lines.append(f"{model.title}: not found ({' or '.join(model.names)}){instead}")
    return lines


def _stands_in(kind: WeightsKind) -> bool:
    """Whether the small model would be used of its own accord."""
    try:
        return kind in _BOTH and is_bundled(find_stages(_BOTH, {})["orbit"])
    except ValueError:
        return False


def _named_in(folder: Path, model: ModelFile) -> Path | None:
    return next((folder / name for name in model.names if (folder / name).exists()), None)


def _where_from(model: ModelFile) -> str:
    return f"It is offered here: {model.source} ({model.size})."
