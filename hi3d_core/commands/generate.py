"""Generate a textured mesh from one picture: its orbit, the refined orbit, the mesh."""

from __future__ import annotations

import argparse
import gc
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..cameras import Cameras
from ..datatypes import OnStep, OrbitViews
from ..diffusion.sampling import SOLVERS
from ..fingerprint import fingerprint
from ..masks import cut_out
from ..model_defaults import ModelDefaults, SampleSettings
from ..orbit_inputs import check_elevation
from ..picture import prepare_picture, read_input_mask, read_input_picture
from ..sample_options import SampleOptions
from ..video_model import Stage, preferred_device, preferred_dtype
from ..views_folder import PICTURE_NAME, StageName, ViewsFolder, as_stored, frames_digest
from ..weights.find import (
    BUNDLED_NAME,
    WHAT_THE_SMALL_MODEL_IS,
    WeightsKind,
    bundled_weights,
    find_stages,
    find_weights,
    is_bundled,
)
from .products import add_product_arguments, check_products, make_products
from .sample_arguments import add_sample_arguments, sample_options
from .stage_clock import StageClock
from .unseen_settings import add_unseen_argument

if TYPE_CHECKING:
    from ..video_model import VideoModel

_log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_LARGEST = 2048  # pixels a side of any frame
_ENLARGED = 2  # the refined frames' side in units of the orbit's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("image", type=Path, help="one picture of the object, any kind of file")
    add_product_arguments(parser)
    parser.add_argument(
        "--elevation",
        type=float,
        default=0.0,
        help="of the camera that took the picture, degrees above the horizon, best -10 to 40 "
        "(default 0)",
    )
    parser.add_argument(
        "--mask", type=Path, help="picture that is white where the object is (default: found)"
    )
    parser.add_argument(
        "--foreground-ratio",
        type=float,
        help="centre the object and scale it to this share of the frame, 0.1 to 1 "
        "(default: the picture's own framing)",
    )
    weights = parser.add_argument_group(
        "weights",
        "else looked for in HI3D_MODELS and models/hi3d; where neither stage is there, the small "
        f"model of the package paints ({BUNDLED_NAME}, which may be named too)",
    )
    weights.add_argument("--orbit-checkpoint", type=Path, help="of stage 1 (first_stage.pt)")
    weights.add_argument("--refiner-checkpoint", type=Path, help="of stage 2 (second_stage.pt)")
    weights.add_argument(
        "--image-encoder", type=Path, help="CLIP ViT-H, where the checkpoints hold none"
    )
    weights.add_argument("--depth-checkpoint", type=Path, help="DPT-hybrid (dpt_hybrid_384.pt)")
    sampling = parser.add_argument_group("diffusion")
    sampling.add_argument(
        "--views-dir",
        type=Path,
        help="folder that keeps the frames of each stage; a later run goes on from them",
    )
    sampling.add_argument(
        "--overwrite",
        action="store_true",
        help="make stages in --views-dir again that were made from other settings",
    )
    sampling.add_argument(
        "--no-refine", action="store_true", help="leave out stage 2 and use the orbit as it is"
    )
    sampling.add_argument(
        "--size",
        type=int,
        help="side of the orbit's frames, refined ones have twice (default: what the model was "
        "trained at; the authors' 512)",
    )
    sampling.add_argument(
        "--steps",
        type=int,
        help="of the solver (default: what the model says, or the solver's own)",
    )
    sampling.add_argument(
        "--solver", choices=SOLVERS, help="default: what the model says; the authors' euler"
    )
    sampling.add_argument(
        "--aesthetic",
        type=float,
        help="how good the picture is said to look, about 4 to 7 (default: computed, or 5.75 "
        "without that network)",
    )
    sampling.add_argument(
        "--strength",
        type=float,
        default=1.0,
        help="how firmly the refiner starts from the orbit, 0 to 1 (default 1)",
    )
    sampling.add_argument(
        "--sharpness",
        type=float,
        default=40.0,
        help="how soon the refiner lets go of it; less is later (default 40)",
    )
    sampling.add_argument(
        "--free-first-frame",
        action="store_true",
        help="refine the painted first frame too, instead of the input picture",
    )
    sampling.add_argument("--dtype", choices=("auto", *_DTYPES), default="auto")
    sampling.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    add_sample_arguments(parser)
    add_unseen_argument(weights)


def run(arguments: argparse.Namespace) -> None:
    """Paint, refine, reconstruct, write; see `add_arguments`. Raises ValueError for bad input."""
    config = check_products(arguments)
    request = _checked(arguments)
    clock = StageClock()
    frames, made_from = make_frames(request, clock)
    clock.begin("masks")
    images, alphas = _cut_out(frames, request)
    size = frames.shape[1]
    cameras = Cameras.orbit(len(frames), request.elevation_degrees, width=size, height=size)
    views = OrbitViews(images, alphas, cameras)
    about = _about(arguments, request, made_from)
    make_products(views, config, arguments, clock, about, request.device)


def _cut_out(frames: Tensor, request: Request) -> tuple[Tensor, Tensor]:
    try:
        return cut_out(frames)
    except ValueError as error:
        kept = "--views-dir would have kept the frames"
        if request.folder is not None:
            kept = f"the frames are in {request.folder.path}, reconstruct takes masks for them"
        raise ValueError(
            f"in the painted frames {error}. Try another --seed or --elevation; {kept}"
        ) from error


@dataclass(frozen=True)
class Weights:
    """A stage's checkpoint, and what it says of its frames and of sampling."""

    path: Path
    defaults: ModelDefaults


@dataclass(frozen=True, eq=False)
class Request:
    """What one run is to paint, known to be good.

    colors, alpha, straight: the object's picture, as `prepare_picture` takes it.
    size: side of the orbit's frames in pixels; None: what the model was trained at.
    refines: whether there is a second stage, with frames of twice the side that is given.
    solver, steps: of both stages; None: what the model says.
    aesthetic_score: None lets the network say.
    strength, sharpness, locks_first_frame: of the second stage, see `RefineConfig`.
    options: how the networks are run.
    folder: where stages are kept and taken from, or None.
    given: weights that the user named, the others are looked for. unseen: their settings that no
        shape tells.
    made_from: what determines both stages, see `ViewsFolder.is_done`.
    """

    colors: Tensor
    alpha: Tensor | None
    straight: bool
    foreground_ratio: float | None
    elevation_degrees: float
    seed: int
    size: int | None
    refines: bool
    solver: str | None
    steps: int | None
    aesthetic_score: float | None
    strength: float
    sharpness: float
    locks_first_frame: bool
    options: SampleOptions
    device: torch.device
    dtype: torch.dtype
    folder: ViewsFolder | None
    given: dict[WeightsKind, Path | None]
    unseen: dict[str, dict[str, int]] | None
    made_from: dict[str, Any]

    def picture(self, stage: Stage, weights: Weights) -> Tensor:
        """The object on white in a square, (S, S, 3), as the stage takes it."""
        return prepare_picture(
            self.colors,
            self.alpha,
            self.settings(stage, weights).size,
            self.foreground_ratio,
            straight=self.straight,
            smooth=weights.defaults.is_small,
        )[0]

    def settings(self, stage: Stage, weights: Weights) -> SampleSettings:
        """How a stage is sampled, the model being asked for what the user left open."""
        return weights.defaults.choose(self._size(stage), self.solver, self.steps)

    def _size(self, stage: Stage) -> int | None:
        return _ENLARGED * self.size if stage == "refiner" and self.size else self.size

    def load(self, stage: Stage, weights: Weights) -> VideoModel:
        """The networks of a stage."""
        depth = self.given["depth"] if stage == "refiner" else None
        return _load_model(
            weights.path,
            stage,
            image_encoder=self.given["image_encoder"],
            depth=depth,
            dtype=self.dtype,
            unseen=self.unseen,
        )

    def generator(self) -> torch.Generator:
        """A stage's own source of noise, so that a stage taken from the folder changes nothing."""
        return torch.Generator().manual_seed(self.seed)

    def orbit_made_from(self, weights: Weights | None = None) -> dict[str, Any]:
        """What determines the orbit; None where it does not matter, as weights, or a size, that
        nobody named.

        weights: those that it was painted with; None: it is yet to be seen whether it must be.
        """
        score = self.aesthetic_score
        return {
            **self._made_from("orbit", weights),
            "aesthetic": "computed" if score is None else score,
            "orbit_checkpoint": self._print("orbit", weights),
        }

    def refined_made_from(
        self, orbit: Tensor | None, weights: Weights | None = None
    ) -> dict[str, Any]:
        """What determines the refined orbit, as `orbit_made_from`."""
        return {
            **self._made_from("refiner", weights),
            "strength": self.strength,
            "sharpness": self.sharpness,
            "locks_first_frame": self.locks_first_frame,
            "orbit": None if orbit is None else frames_digest(orbit),
            "refiner_checkpoint": self._print("refiner", weights),
            "depth_checkpoint": self._print("depth", None),
        }

    def _made_from(self, stage: Stage, weights: Weights | None) -> dict[str, Any]:
        if weights is None:
            chosen: dict[str, Any] = {
                "size": self._size(stage),
                "solver": self.solver,
                "steps": self.steps,
            }
            return {**self.made_from, **chosen}
        settings = self.settings(stage, weights)
        chosen = {"size": settings.size, "solver": settings.solver, "steps": settings.steps}
        return {**self.made_from, **chosen, "dtype": _name_of(self.dtype)}

    def _print(self, kind: WeightsKind, found: Weights | None) -> str | None:
        given = self.given[kind]
        if found is not None:
            return fingerprint(found.path)
        return None if given is None else fingerprint(find_weights(kind, given))


def make_frames(request: Request, clock: StageClock) -> tuple[Tensor, dict[str, Any]]:
    """The frames to reconstruct from, (16, S, S, 3): the kept ones, or new ones, which are kept.

    Returns them, and what the orbit was made from.
    Raises ValueError for kept stages that were made from something else, and for missing weights,
    before any network is run.
    """
    orbit = _kept(request.folder, "orbit", request.orbit_made_from())
    refined = None
    if request.refines:
        refined = _kept(request.folder, "refined", request.refined_made_from(orbit))
    found = _weights(request, orbit, refined)  # better said now than when the orbit is done
    if orbit is None:
        made_from = request.orbit_made_from(found["orbit"])
        orbit = _paint(request, found["orbit"], clock)
        gc.collect()  # frees the networks before the next are loaded
        if request.refines:
            refined = _kept(request.folder, "refined", request.refined_made_from(orbit))
    else:
        assert request.folder is not None  # that is where it was kept
        made_from = request.folder.record("orbit")
    if not request.refines:
        return orbit, made_from
    if refined is None:
        if "refiner" not in found:  # the kept one was made from another orbit
            found |= _weights(request, orbit, None)
        refined = _refine(request, orbit, found["refiner"], clock)
        gc.collect()
    return refined, made_from


def _weights(
    request: Request, orbit: Tensor | None, refined: Tensor | None
) -> dict[Stage, Weights]:
    """The checkpoints of the stages that are not there yet.

    Raises ValueError that tells of all that are missing or wrong, not of one.
    """
    refines = request.refines and refined is None
    given: dict[Stage, str | Path | None] = {
        "orbit": request.given["orbit"],
        "refiner": request.given["refiner"],
    }
    found: dict[Stage, Path] = {}
    if orbit is None:
        found = find_stages(["orbit", "refiner"] if refines else ["orbit"], given)
    elif refines:
        if given["refiner"] is None and _was_painted_by_the_bundled_model(request.folder):
            given["refiner"] = BUNDLED_NAME
        # Another model's orbit is not refined by the bundled one, unless the user says so.
        found = {"refiner": find_weights("refiner", given["refiner"])}
    if any(map(is_bundled, found.values())):
        _log.info("%s", WHAT_THE_SMALL_MODEL_IS)
    weights, problems = {}, []
    for stage, path in found.items():
        try:
            defaults = _check_weights(
                path, stage, request.given["image_encoder"], request.given["depth"]
            )
            weights[stage] = Weights(path, defaults)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return weights


def _was_painted_by_the_bundled_model(folder: ViewsFolder | None) -> bool:
    bundled = bundled_weights("orbit")
    if folder is None or bundled is None:
        return False
    return folder.record("orbit").get("orbit_checkpoint") == fingerprint(bundled)


def _kept(folder: ViewsFolder | None, stage: StageName, made_from: dict[str, Any]) -> Tensor | None:
    if folder is None or not folder.is_done(stage, made_from):
        return None
    _log.info("%s is taken from %s", stage, folder.path / stage)
    return folder.read(stage)


def _paint(request: Request, weights: Weights, clock: StageClock) -> Tensor:
    clock.begin("picture")
    picture = request.picture("orbit", weights)
    clock.begin("load orbit")
    model = request.load("orbit", weights)
    settings = request.settings("orbit", weights)
    frames = as_stored(_generate_orbit(request, settings, model, picture, clock.begin("orbit")))
    if request.folder is not None:
        request.folder.write("orbit", frames, request.orbit_made_from(weights), picture)
    return frames


def _refine(request: Request, orbit: Tensor, weights: Weights, clock: StageClock) -> Tensor:
    clock.begin("picture")
    picture = request.picture("refiner", weights)
    clock.begin("load refiner")
    model = request.load("refiner", weights)
    settings = request.settings("refiner", weights)
    on_step = clock.begin("refine")
    frames = as_stored(_refine_orbit(request, settings, model, orbit, picture, on_step))
    if request.folder is not None:
        request.folder.write("refined", frames, request.refined_made_from(orbit, weights))
    return frames


def _checked(arguments: argparse.Namespace) -> Request:
    """Check everything that needs no network."""
    elevation = check_elevation(arguments.elevation)
    _check_options(arguments)
    device, dtype = _device_and_dtype(arguments)
    given: dict[WeightsKind, Path | None] = {
        "orbit": arguments.orbit_checkpoint,
        "refiner": arguments.refiner_checkpoint,
        "image_encoder": arguments.image_encoder,
        "depth": arguments.depth_checkpoint,
    }
    for kind, path in given.items():
        if path is not None:
            find_weights(kind, path)
    colors, alpha = read_input_picture(arguments.image)
    if arguments.mask is not None:
        if alpha is not None:
            # Colours where the file is transparent mean nothing: show them as a viewer would.
            colors = colors * alpha[..., None] + (1 - alpha[..., None])
        alpha = read_input_mask(arguments.mask)
    folder = None
    if arguments.views_dir is not None:
        folder = ViewsFolder(arguments.views_dir, arguments.overwrite)
    options = sample_options(arguments)
    encoder = arguments.image_encoder
    ratio = arguments.foreground_ratio
    made_from = {
        "picture": fingerprint(arguments.image),
        "mask": "none" if arguments.mask is None else fingerprint(arguments.mask),
        "foreground_ratio": "none" if ratio is None else ratio,
        "elevation": elevation,
        "seed": arguments.seed,
        "image_encoder": None if encoder is None else fingerprint(encoder),
        "dtype": None if arguments.dtype == "auto" else arguments.dtype,
        # Of the options only these change the result.
        "unseen": arguments.set or "none",
        "tiled": options.tiled,
        "reuse_every": options.reuse_every,
    }
    return Request(
        colors=colors,
        alpha=alpha,
        straight=arguments.mask is None,
        foreground_ratio=ratio,
        elevation_degrees=elevation,
        seed=arguments.seed,
        size=arguments.size,
        refines=not arguments.no_refine,
        solver=arguments.solver,
        steps=arguments.steps,
        aesthetic_score=arguments.aesthetic,
        strength=arguments.strength,
        sharpness=arguments.sharpness,
        locks_first_frame=not arguments.free_first_frame,
        options=options,
        device=device,
        dtype=dtype,
        folder=folder,
        given=given,
        unseen=arguments.set,
        made_from=made_from,
    )


def _check_options(arguments: argparse.Namespace) -> None:
    size, ratio = arguments.size, arguments.foreground_ratio
    largest = _LARGEST if arguments.no_refine else _LARGEST // _ENLARGED
    if size is not None and (size % 64 or not 64 <= size <= largest):
        raise ValueError(f"--size is {size} pixels, expected a multiple of 64 from 64 to {largest}")
    if ratio is not None and not 0.1 <= ratio <= 1:
        raise ValueError(f"--foreground-ratio is {ratio}, expected 0.1 to 1")
    score = arguments.aesthetic
    if score is not None and not 0 <= score <= 10:  # also refuses NaN
        raise ValueError(f"--aesthetic is {score}, expected 0 to 10, usually 4 to 7")
    if not 0 <= arguments.strength <= 1:
        raise ValueError(f"--strength is {arguments.strength}, expected 0 to 1")
    if not arguments.sharpness >= 0:
        raise ValueError(f"--sharpness is {arguments.sharpness}, expected 0 or more")
    if arguments.steps is not None and not 1 <= arguments.steps <= 1000:
        raise ValueError(f"--steps is {arguments.steps}, expected 1 to 1000")
    if not 0 <= arguments.seed < 2**64:
        raise ValueError(f"--seed is {arguments.seed}, expected 0 to 2**64 - 1")
    if arguments.overwrite and arguments.views_dir is None:
        raise ValueError("--overwrite is about the folder --views-dir: name that too")
    written = [arguments.sheet]
    if arguments.views_dir is not None:
        written.append(arguments.views_dir / PICTURE_NAME)
    for path in written:
        if path is not None and path.resolve() == arguments.image.resolve():
            raise ValueError(f"{path} is the input picture and would be overwritten: rename it")


def _device_and_dtype(arguments: argparse.Namespace) -> tuple[torch.device, torch.dtype]:
    present = {
        "auto": True,
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present[arguments.device]:
        raise ValueError(f"--device {arguments.device}: this machine has none that torch can use")
    named = arguments.device != "auto"
    device = torch.device(arguments.device) if named else preferred_device()
    dtype = preferred_dtype(device) if arguments.dtype == "auto" else _DTYPES[arguments.dtype]
    if device.type == "cpu" and dtype == torch.float16:
        _log.warning("CPUs compute slowly in fp16: fp32 or bf16 take a fraction of the time")
    return device, dtype


def _name_of(dtype: torch.dtype) -> str:
    return next(name for name, each in _DTYPES.items() if each == dtype)


def _about(
    arguments: argparse.Namespace, request: Request, made_from: dict[str, Any]
) -> dict[str, Any]:
    """The report's beginning. made_from: what the orbit was."""
    return {
        "source": str(arguments.image),
        "generation": {
            **request.made_from,
            **made_from,
            "refined": request.refines,
            "device": str(request.device),
            "dtype": _name_of(request.dtype),
        },
    }


# The networks' libraries take seconds to import, so that waits until they are needed.


def _check_weights(
    path: Path, stage: Stage, image_encoder: Path | None, depth: Path | None
) -> ModelDefaults:
    """Read the headers: whether this is the stage's checkpoint and nothing is missing beside it;
    returns what the model recommends."""
    from ..model_defaults import OFFICIAL
    from ..weights.load import defaults_of, find_holdings

    with ExitStack() as stack:
        found = find_holdings(stack, path, stage, image_encoder, depth, None)
        defaults = defaults_of(found["unet"].file, stage) or OFFICIAL[stage]
    if stage == "refiner" and "depth" not in found:
        find_weights("depth", beside=path)  # says where it is offered
    return defaults


def _load_model(path: Path, stage: Stage, **settings: Any) -> VideoModel:
    from ..weights.load import load_video_model

    return load_video_model(path, stage, **settings)


def _generate_orbit(
    request: Request,
    settings: SampleSettings,
    model: VideoModel,
    picture: Tensor,
    on_step: OnStep,
) -> Tensor:
    from ..orbit import OrbitConfig, generate_orbit

    return generate_orbit(
        model,
        picture,
        request.elevation_degrees,
        OrbitConfig(
            size=settings.size,
            steps=settings.steps,
            solver=settings.solver,
            guidance=settings.guidance,
            aesthetic_score=request.aesthetic_score,
            options=request.options,
        ),
        generator=request.generator(),
        device=request.device,
        on_step=on_step,
    )


def _refine_orbit(
    request: Request,
    settings: SampleSettings,
    model: VideoModel,
    orbit: Tensor,
    picture: Tensor,
    on_step: OnStep,
) -> Tensor:
    from ..refine import RefineConfig, refine_orbit

    return refine_orbit(
        model,
        orbit,
        picture,
        request.elevation_degrees,
        RefineConfig(
            size=settings.size,
            steps=settings.steps,
            solver=settings.solver,
            guidance=settings.guidance,
            strength=request.strength,
            sharpness=request.sharpness,
            lock_first_frame=request.locks_first_frame,
            options=request.options,
        ),
        generator=request.generator(),
        device=request.device,
        on_step=on_step,
    )
