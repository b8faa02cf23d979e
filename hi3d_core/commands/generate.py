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
from ..orbit_inputs import check_elevation
from ..picture import prepare_picture, read_input_mask, read_input_picture
from ..sample_options import SampleOptions
from ..video_model import Stage, preferred_device, preferred_dtype
from ..views_folder import PICTURE_NAME, StageName, ViewsFolder, as_stored, frames_digest
from ..weights.find import WeightsKind, find_weights
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
    weights = parser.add_argument_group("weights, else looked for in HI3D_MODELS and models/hi3d")
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
        "--size", type=int, default=512, help="side of the orbit's frames; refined ones have twice"
    )
    sampling.add_argument("--steps", type=int, help="of the solver (default: its own)")
    sampling.add_argument("--solver", choices=SOLVERS, default="euler", help="euler is official")
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
    frames = make_frames(request, clock)
    clock.begin("masks")
    images, alphas = _cut_out(frames, request)
    size = frames.shape[1]
    cameras = Cameras.orbit(len(frames), request.elevation_degrees, width=size, height=size)
    make_products(
        OrbitViews(images, alphas, cameras), config, arguments, clock, _about(arguments, request)
    )


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


@dataclass(frozen=True, eq=False)
class Request:
    """What one run is to paint, known to be good.

    colors, alpha, straight: the object's picture, as `prepare_picture` takes it.
    size: side of the orbit's frames in pixels. refines: whether there is a second stage, with
        frames of twice that side. solver, steps: of both stages.
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
    size: int
    refines: bool
    solver: str
    steps: int
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

    def picture(self, size: int) -> Tensor:
        """The object on white in a square, (size, size, 3)."""
        ratio = self.foreground_ratio
        return prepare_picture(self.colors, self.alpha, size, ratio, straight=self.straight)[0]

    def weights(self, stage: Stage) -> Path:
        """Where a stage's checkpoint is; ValueError if it, or what it needs beside, is missing."""
        path = find_weights(stage, self.given[stage])
        _check_weights(path, stage, self.given["image_encoder"], self.given["depth"])
        return path

    def load(self, stage: Stage, path: Path) -> VideoModel:
        """The networks of a stage."""
        depth = self.given["depth"] if stage == "refiner" else None
        return _load_model(
            path,
            stage,
            image_encoder=self.given["image_encoder"],
            depth=depth,
            dtype=self.dtype,
            unseen=self.unseen,
        )

    def generator(self) -> torch.Generator:
        """A stage's own source of noise, so that a stage taken from the folder changes nothing."""
        return torch.Generator().manual_seed(self.seed)

    def orbit_made_from(self, weights: Path | None = None) -> dict[str, Any]:
        """What determines the orbit; None where it does not matter, as weights that nobody named.

        weights: those that it was painted with; None: it is yet to be seen whether it must be.
        """
        score = self.aesthetic_score
        return {
            **self._made_from(weights),
            "size": self.size,
            "aesthetic": "computed" if score is None else score,
            "orbit_checkpoint": self._print("orbit", weights),
        }

    def refined_made_from(
        self, orbit: Tensor | None, weights: Path | None = None
    ) -> dict[str, Any]:
        """What determines the refined orbit, as `orbit_made_from`."""
        return {
            **self._made_from(weights),
            "size": _ENLARGED * self.size,
            "strength": self.strength,
            "sharpness": self.sharpness,
            "locks_first_frame": self.locks_first_frame,
            "orbit": None if orbit is None else frames_digest(orbit),
            "refiner_checkpoint": self._print("refiner", weights),
            "depth_checkpoint": self._print("depth", None),
        }

    def _made_from(self, weights: Path | None) -> dict[str, Any]:
        if weights is None:
            return self.made_from
        return {**self.made_from, "dtype": _name_of(self.dtype)}

    def _print(self, kind: WeightsKind, found: Path | None) -> str | None:
        given = self.given[kind]
        if found is None and given is not None:
            found = find_weights(kind, given)
        return None if found is None else fingerprint(found)


def make_frames(request: Request, clock: StageClock) -> Tensor:
    """The frames to reconstruct from, (16, S, S, 3): the kept ones, or new ones, which are kept.

    Raises ValueError for kept stages that were made from something else, and for missing weights,
    before any network is run.
    """
    orbit = _kept(request.folder, "orbit", request.orbit_made_from())
    refined = None
    if request.refines:
        refined = _kept(request.folder, "refined", request.refined_made_from(orbit))
    _check_all_weights(request, orbit, refined)  # better said now than when the orbit is done
    if orbit is None:
        orbit = _paint(request, clock)
        gc.collect()  # frees the networks before the next are loaded
        if request.refines:
            refined = _kept(request.folder, "refined", request.refined_made_from(orbit))
    if not request.refines:
        return orbit
    if refined is None:
        refined = _refine(request, orbit, clock)
        gc.collect()
    return refined


def _check_all_weights(request: Request, orbit: Tensor | None, refined: Tensor | None) -> None:
    """Raise ValueError that tells of all checkpoints that are missing or wrong, not one."""
    wanted: list[Stage] = []
    if orbit is None:
        wanted.append("orbit")
    if request.refines and refined is None:
        wanted.append("refiner")
    problems = []
    for stage in wanted:
        try:
            request.weights(stage)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


def _kept(folder: ViewsFolder | None, stage: StageName, made_from: dict[str, Any]) -> Tensor | None:
    if folder is None or not folder.is_done(stage, made_from):
        return None
    _log.info("%s is taken from %s", stage, folder.path / stage)
    return folder.read(stage)


def _paint(request: Request, clock: StageClock) -> Tensor:
    clock.begin("picture")
    picture = request.picture(request.size)
    clock.begin("load orbit")
    weights = request.weights("orbit")
    model = request.load("orbit", weights)
    frames = as_stored(_generate_orbit(request, model, picture, clock.begin("orbit")))
    if request.folder is not None:
        request.folder.write("orbit", frames, request.orbit_made_from(weights), picture)
    return frames


def _refine(request: Request, orbit: Tensor, clock: StageClock) -> Tensor:
    clock.begin("picture")
    picture = request.picture(_ENLARGED * request.size)
    clock.begin("load refiner")
    weights = request.weights("refiner")
    model = request.load("refiner", weights)
    frames = as_stored(_refine_orbit(request, model, orbit, picture, clock.begin("refine")))
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
    steps = SOLVERS[arguments.solver].steps if arguments.steps is None else arguments.steps
    ratio = arguments.foreground_ratio
    made_from = {
        "picture": fingerprint(arguments.image),
        "mask": "none" if arguments.mask is None else fingerprint(arguments.mask),
        "foreground_ratio": "none" if ratio is None else ratio,
        "elevation": elevation,
        "seed": arguments.seed,
        "solver": arguments.solver,
        "steps": steps,
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
        steps=steps,
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
    if size % 64 or not 64 <= size <= largest:
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


def _about(arguments: argparse.Namespace, request: Request) -> dict[str, Any]:
    """The report's beginning."""
    return {
        "source": str(arguments.image),
        "generation": {
            **request.made_from,
            "size": request.size,
            "refined": request.refines,
            "device": str(request.device),
            "dtype": _name_of(request.dtype),
        },
    }


# The networks' libraries take seconds to import, so that waits until they are needed.


def _check_weights(
    path: Path, stage: Stage, image_encoder: Path | None, depth: Path | None
) -> None:
    """Read the headers: whether this is the stage's checkpoint and nothing is missing beside it."""
    from ..weights.load import find_holdings

    with ExitStack() as stack:
        found = find_holdings(stack, path, stage, image_encoder, depth, None)
    if stage == "refiner" and "depth" not in found:
        find_weights("depth", beside=path)  # says where it is offered


def _load_model(path: Path, stage: Stage, **settings: Any) -> VideoModel:
    from ..weights.load import load_video_model

    return load_video_model(path, stage, **settings)


def _generate_orbit(
    request: Request, model: VideoModel, picture: Tensor, on_step: OnStep
) -> Tensor:
    from ..orbit import OrbitConfig, generate_orbit

    return generate_orbit(
        model,
        picture,
        request.elevation_degrees,
        OrbitConfig(
            size=request.size,
            steps=request.steps,
            solver=request.solver,
            aesthetic_score=request.aesthetic_score,
            options=request.options,
        ),
        generator=request.generator(),
        device=request.device,
        on_step=on_step,
    )


def _refine_orbit(
    request: Request, model: VideoModel, orbit: Tensor, picture: Tensor, on_step: OnStep
) -> Tensor:
    from ..refine import RefineConfig, refine_orbit

    return refine_orbit(
        model,
        orbit,
        picture,
        request.elevation_degrees,
        RefineConfig(
            size=_ENLARGED * request.size,
            steps=request.steps,
            solver=request.solver,
            strength=request.strength,
            sharpness=request.sharpness,
            lock_first_frame=request.locks_first_frame,
            options=request.options,
        ),
        generator=request.generator(),
        device=request.device,
        on_step=on_step,
    )
