"""Stage 2: 16 coarse frames, their depth and the input picture -> 16 frames at 1024 squared.

Hi3D, Yang et al. 2024, section 3.3. Sampling starts from the coarse frames' own latents, and they
are mixed in again before each of the first steps. Letters: F frames, S the refined frames' side,
h and w the latent grid (S / 8).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from .conditioning import Conditioning
from .datatypes import OnPreview, OnStep
from .depth import estimate_raw, stretch
from .diffusion.embeddings import refiner_vector
from .diffusion.mixing import mixing_weights, mixing_weights_at
from .diffusion.preview import LatentPreview
from .diffusion.sampling import SOLVERS, BeforeStep
from .diffusion.schedule import edm_sigmas
from .export.checks import to_bytes
from .model_defaults import OFFICIAL
from .networks.vae import LATENT_SCALE
from .orbit_inputs import check_cond_aug, check_elevation
from .progress import Progress
from .resize import resize_linear_8bit
from .sample_options import SampleOptions
from .video_model import VideoModel
from .video_sampling import (
    advancing,
    decode_frames,
    draw,
    embed_token,
    encode_frames,
    sample_latents,
    settled,
    to_network,
)

_DEPTH_CELL = 3  # the depth lies at 3 x 3 samples for each latent, unfolded to 9 channels


@dataclass(frozen=True)
class RefineConfig:
    """Settings of stage 2. What is None the model says (`VideoModel.defaults`).

    size: side of the refined frames in pixels, a multiple of 64; the authors' weights: 1024.
    steps: solver steps; the authors' weights: the solver's own number, 25 for "euler".
    solver: a name in `diffusion.sampling.SOLVERS`; the authors' weights: "euler".
    guidance: scale at the first and at the last frame, linear in between; theirs: (1, 2).
    cond_aug: standard deviation of the noise on the conditioning frames, whose range is [-1, 1].
    strength: how firmly the coarse frames are mixed in, 0 (not at all) to 1.
    sharpness: how soon the mixing fades: the exponent of its cosine; smaller holds on longer.
    lock_first_frame: frame 0 of the coarse orbit is replaced by the input picture.
    options: how the networks are run.
    """

    size: int | None = None
    steps: int | None = None
    solver: str | None = None
    guidance: tuple[float, float] | None = None
    cond_aug: float = 0.02
    strength: float = 1.0
    sharpness: float = 40.0
    lock_first_frame: bool = True
    options: SampleOptions = field(default_factory=SampleOptions)


@dataclass(frozen=True, eq=False)
class RefinerNoise:
    """The stage's draws, unit normal, in the official order.

    latents: (F, 4, h, w). posterior: (F, 4, h, w). frames: (F, 3, S, S).
    """

    latents: Tensor
    posterior: Tensor
    frames: Tensor

    @classmethod
    def drawn(cls, generator: torch.Generator, frames: int, size: int, grid: int) -> RefinerNoise:
        """Draw them all."""
        latents = draw(generator, (frames, 4, grid, grid))
        # One by one: torch fills large and small tensors by different rules.
        posterior = torch.cat([draw(generator, (1, 4, grid, grid)) for _ in range(frames)])
        return cls(latents, posterior, draw(generator, (frames, 3, size, size)))


def refine_orbit(
    model: VideoModel,
    frames: Tensor,
    picture: Tensor,
    elevation_degrees: float,
    config: RefineConfig | None = None,
    *,
    generator: torch.Generator,
    depths: Tensor | None = None,
    device: torch.device | None = None,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
) -> Tensor:
    """Repaint an orbit at a higher resolution.

    model: the refiner model. frames: (F, H, W, 3) in [0, 1], the coarse orbit on white, frame 0 the
    input view. picture: (H', W', 3) in [0, 1], the input picture on white, square as the frames.
    elevation_degrees: the orbit's, positive looking down.
    generator: on the CPU, so that a seed means the same noise on every machine.
    depths: (F, H'', W'') relative inverse depth, near is large (see `depth.to_inverse_depth`);
    None estimates it with the model's own network.
    device: where the networks work, each only while it is used; None leaves them where they are.
    on_preview: called after each step with a rough picture of the frames, (F, h, w, 3) in [0, 1].

    Returns (F, S, S, 3) float32 on the CPU, in multiples of 1/255.

    Raises ValueError for bad input (another number of frames or of depth maps, a model without a
    depth network where no depths are given); whatever `on_step` raises to cancel.
    """
    config = config or RefineConfig()
    model.check_stage("refiner", "refine_orbit")
    chosen = settled(model, config)
    config = replace(config, size=chosen.size, solver=chosen.solver)
    check_cond_aug(config.cond_aug)
    elevation_degrees = check_elevation(elevation_degrees)
    _check_counts(model, frames, depths)
    for name, value in (("strength", config.strength), ("sharpness", config.sharpness)):
        if not (value >= 0 and (name == "sharpness" or value <= 1)):
            raise ValueError(f"{name} is {value}, expected 0 to 1 (sharpness: 0 or more)")
    # Encoded twice, perhaps looked at for their depth, and decoded.
    passes = 3 if depths is not None else 4
    progress = Progress(on_step, passes * model.frames + chosen.steps)
    progress.alive()
    grid = chosen.size // model.pixels_per_latent
    noise = RefinerNoise.drawn(generator, model.frames, chosen.size, grid)

    images = enlarge(frames, picture, config)
    coarse = encode_coarse(model, images, noise.posterior, config, device, progress)
    conditioning = refiner_conditioning(
        model, images, elevation_degrees, config, noise.frames, depths, device, progress
    )
    preview = None
    if on_preview is not None:
        preview = LatentPreview.fit(images[:1], conditioning.concat[:1, -4:])
    latents = sample_latents(
        model,
        conditioning,
        noise.latents,
        solver=chosen.solver,
        steps=chosen.steps,
        guidance=chosen.guidance,
        options=config.options,
        device=device,
        before_step=mix_in(coarse, noise.latents, config, chosen.steps),
        progress=progress,
        preview=preview,
        on_preview=on_preview,
    )
    return decode_frames(model, latents, config.options, device=device, progress=progress)


def _check_counts(model: VideoModel, frames: Tensor, depths: Tensor | None) -> None:
    if len(frames) != model.frames:
        raise ValueError(
            f"there are {len(frames)} frames, expected {model.frames}: a whole orbit, evenly spaced"
        )
    if depths is None:
        if model.depth is None:
            raise ValueError(
                "no depth network is loaded and no depth maps are given: give dpt_hybrid_384.pt "
                "(--depth-checkpoint), or depth maps of your own"
            )
    elif depths.ndim != 3 or len(depths) != model.frames or 0 in depths.shape:
        raise ValueError(
            f"there are {len(depths)} depth maps of shape {tuple(depths.shape[1:])}, expected "
            f"{model.frames}, (height, width) each: one for each frame"
        )
    elif not torch.isfinite(depths).all():
        raise ValueError("the depth maps hold values that are not finite: see to_inverse_depth")


def enlarge(frames: Tensor, picture: Tensor, config: RefineConfig) -> Tensor:
    """Coarse frames as the network's input: (F, 3, S, S) in [-1, 1].

    Rounded to 8 bits and resized as the official code does it; frame 0 is the input picture if
    locked.
    """
    size = config.size or OFFICIAL["refiner"].frame_size
    pictures = [
        picture if index == 0 and config.lock_first_frame else frame
        for index, frame in enumerate(frames)
    ]
    for name, value in (("frames", frames), ("picture", picture[None])):
        to_network(value, name)  # refuses other ranges and shapes
    resized = [resize_linear_8bit(to_bytes(each), size, size) for each in pictures]
    return to_network(torch.stack([torch.from_numpy(each) for each in resized]) / 255, "frames")


def encode_coarse(
    model: VideoModel,
    images: Tensor,
    noise: Tensor,
    config: RefineConfig,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Latents (F, 4, h, w) of the clean coarse frames, drawn from the posterior, times 0.18215."""
    mean, log_variance = encode_frames(
        model.vae, images, config.options, device=device, progress=progress
    )
    return (mean + torch.exp(0.5 * log_variance) * noise) * LATENT_SCALE


def refiner_conditioning(
    model: VideoModel,
    images: Tensor,
    elevation_degrees: float,
    config: RefineConfig,
    noise: Tensor,
    depths: Tensor | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Conditioning:
    """Stage 2's condition of enlarged frames (F, 3, S, S) in [-1, 1].

    noise: (F, 3, S, S) unit normal, added to the frames with weight `cond_aug` before the
    autoencoder and before the depth network; the image encoder sees the clean frame 0.
    depths: (F, H, W) relative inverse depth, or None to estimate it.
    """
    noisy = images + config.cond_aug * noise
    if depths is None:
        raw = estimate_raw(model, noisy, device=device, on_step=advancing(progress))
    else:
        raw = depths.float().cpu()
    latents, _ = encode_frames(
        model.conditioning_vae, noisy, config.options, device=device, progress=progress
    )
    return Conditioning(
        embed_token(model, images[:1], device),
        refiner_vector(torch.tensor([float(elevation_degrees)]), torch.tensor([config.cond_aug])),
        torch.cat([depth_channels(raw, *latents.shape[2:]), latents], dim=1),
    )


def depth_channels(raw: Tensor, height: int, width: int) -> Tensor:
    """Relative inverse depth (F, H, W) -> (F, 9, height, width) for a latent grid.

    Resized to 3 x 3 samples a latent, each frame stretched to [0, 1], and unfolded row by row.
    """
    sides = (_DEPTH_CELL * height, _DEPTH_CELL * width)
    resized = functional.interpolate(raw[:, None], sides, mode="bilinear", align_corners=False)
    return functional.pixel_unshuffle(stretch(resized[:, 0])[:, None], _DEPTH_CELL)


def mix_in(coarse: Tensor, noise: Tensor, config: RefineConfig, steps: int) -> BeforeStep:
    """What is done to the latents before each step: some of the noised coarse latents in."""
    weights = _weights(config, steps)

    def before_step(index: int, x: Tensor, sigma: Tensor) -> Tensor:
        weight = float(weights[index])
        noised = coarse.to(x) + sigma.to(x) * noise.to(x)
        return (1 - weight) * x + weight * noised

    return before_step


def _weights(config: RefineConfig, steps: int) -> Tensor:
    schedule = SOLVERS[config.solver or OFFICIAL["refiner"].solver].sigmas
    if schedule is edm_sigmas:
        return mixing_weights(steps, config.strength, config.sharpness)
    # Fewer steps at other levels: as firm as the official run is at these levels.
    return mixing_weights_at(
        schedule(steps), config.strength, config.sharpness, SOLVERS["euler"].steps
    )
