"""Stage 1: one picture -> a 16-frame orbit around the object at a chosen elevation.

Hi3D, Yang et al. 2024, section 3.2, on Stable Video Diffusion. Letters: F frames, S the picture's
side, h and w the latent grid (S / 8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .conditioning import Conditioning
from .datatypes import OnPreview, OnStep
from .diffusion.embeddings import orbit_vector
from .diffusion.preview import LatentPreview
from .networks import aesthetic
from .orbit_inputs import check_cond_aug, check_elevation
from .progress import Progress
from .sample_options import SampleOptions
from .video_model import VideoModel, like_weights, placed
from .video_sampling import (
    decode_frames,
    draw,
    embed_token,
    encode_frames,
    sample_latents,
    settled,
    to_network,
)

DEFAULT_AESTHETIC_SCORE = 5.75


@dataclass(frozen=True)
class OrbitConfig:
    """Settings of stage 1. What is None the model says (`VideoModel.defaults`).

    size: side of the frames in pixels, a multiple of 64; the authors' weights: 512.
    steps: solver steps; the authors' weights: the solver's own number, 25 for "euler".
    solver: a name in `diffusion.sampling.SOLVERS`; the authors' weights: "euler".
    guidance: scale at the first and at the last frame, linear in between; theirs: (1, 2.5).
    cond_aug: standard deviation of the noise on the conditioning picture, whose range is [-1, 1].
    aesthetic_score: how good the picture is said to look, about 4 to 7; None lets the network say,
        where its weights are present, and else takes 5.75.
    options: how the networks are run.
    """

    size: int | None = None
    steps: int | None = None
    solver: str | None = None
    guidance: tuple[float, float] | None = None
    cond_aug: float = 0.02
    aesthetic_score: float | None = None
    options: SampleOptions = field(default_factory=SampleOptions)


def generate_orbit(
    model: VideoModel,
    picture: Tensor,
    elevation_degrees: float,
    config: OrbitConfig | None = None,
    *,
    generator: torch.Generator,
    device: torch.device | None = None,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
) -> Tensor:
    """Paint the object's orbit from its picture.

    model: the orbit model. picture: (S, S, 3) in [0, 1], the object on white (see `picture.py`), S
    being the configured size. elevation_degrees: of the camera that took it and of the whole orbit,
    positive looking down; the weights know -10 to 40.
    generator: on the CPU, so that a seed means the same noise on every machine.
    device: where the networks work, each only while it is used; None leaves them where they are.
    on_preview: called after each step with a rough picture of the frames, (F, h, w, 3) in [0, 1].

    Returns (F, S, S, 3) float32 on the CPU, in multiples of 1/255. Frame 0 shows the input view;
    the camera then moves counter-clockwise seen from above, 22.5 degrees a frame.

    Raises ValueError for bad input; whatever `on_step` raises to cancel.
    """
    config = config or OrbitConfig()
    model.check_stage("orbit", "generate_orbit")
    chosen = settled(model, config)
    check_cond_aug(config.cond_aug)
    elevation_degrees = check_elevation(elevation_degrees)
    image = to_network(picture[None], "picture")
    if image.shape[2:] != (chosen.size, chosen.size):
        raise ValueError(
            f"picture is {image.shape[3]} x {image.shape[2]} pixels, expected {chosen.size} x "
            f"{chosen.size}: use picture.prepare_picture, or set the size in the configuration"
        )
    progress = Progress(on_step, 1 + chosen.steps + model.frames)
    progress.alive()
    grid = chosen.size // model.pixels_per_latent
    # The official order of the draws: first the picture's noise, then the latents.
    picture_noise = draw(generator, image.shape)
    latent_noise = draw(generator, (model.frames, 4, grid, grid))

    conditioning = orbit_conditioning(
        model, image, elevation_degrees, config, picture_noise, device=device
    )
    progress.step()
    latents = sample_latents(
        model,
        conditioning,
        latent_noise,
        solver=chosen.solver,
        steps=chosen.steps,
        guidance=chosen.guidance,
        options=config.options,
        device=device,
        progress=progress,
        preview=LatentPreview.fit(image, conditioning.concat[:1]) if on_preview else None,
        on_preview=on_preview,
    )
    return decode_frames(model, latents, config.options, device=device, progress=progress)


def orbit_conditioning(
    model: VideoModel,
    image: Tensor,
    elevation_degrees: float,
    config: OrbitConfig,
    noise: Tensor,
    *,
    device: torch.device | None = None,
) -> Conditioning:
    """Stage 1's condition of a picture (1, 3, S, S) in [-1, 1].

    noise: (1, 3, S, S) unit normal, added to the picture with weight `cond_aug` before the
    autoencoder; the image encoder and the aesthetic score see the clean picture.
    """
    context = embed_token(model, image, device)
    vector = orbit_vector(
        _aesthetic_score(model, image, config, device),
        torch.tensor([float(elevation_degrees)]),
        torch.tensor([config.cond_aug]),
    )
    noisy = image + config.cond_aug * noise
    # The mode of the posterior, not multiplied by 0.18215 as the noisy latents are.
    mean, _ = encode_frames(model.conditioning_vae, noisy, config.options, device=device)
    return Conditioning(context, vector, mean.expand(model.frames, -1, -1, -1))


def _aesthetic_score(
    model: VideoModel, image: Tensor, config: OrbitConfig, device: torch.device | None
) -> Tensor:
    if config.aesthetic_score is not None:
        if not math.isfinite(config.aesthetic_score):
            raise ValueError(
                f"the aesthetic score is {config.aesthetic_score}, expected a number, about 4 to 7"
            )
        return torch.tensor([[float(config.aesthetic_score)]])
    if model.aesthetic is None:
        return torch.tensor([[DEFAULT_AESTHETIC_SCORE]])
    with placed(model.aesthetic, device) as network, torch.no_grad():
        return aesthetic.score(network, like_weights(image, network)).float().cpu()
