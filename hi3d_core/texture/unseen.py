"""What no view saw: shown to a painter from any camera, and baked back once it is painted.

The texels that a view saw surely are never touched. In the others the painted colours take over
smoothly from their border inwards, by how uncertain the texel was.

Letters: V views, H and W their height and width, S the texture's side.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..cameras import Cameras
from ..datatypes import OnStep, OrbitViews
from ..progress import Progress
from ..render import render_mesh
from .bake import SURELY_SEEN, BakedTexture, SurfaceTexels, check_anchor
from .config import TextureConfig
from .fill import FILL_STEPS, fill_around_charts
from .levelling import solve_gains
from .surface_colors import chunks, spread_to_unsure
from .votes import blend_votes, collect_votes, eased
from .witness import Witness, prepare_witness

_LEVELLING_SAMPLES = 40_000
_SUPERSAMPLE = 2  # points a pixel along each axis when the mask is drawn


def unseen_in_views(
    baked: BakedTexture, cameras: Cameras, *, on_step: OnStep | None = None
) -> Tensor:
    """How much of each pixel shows surface that no view saw surely.

    cameras: any, in the mesh's world; the views' own ones too. on_step: called after each view.
    Returns (V, H, W) float32 in [0, 1]: above 0.5 is a mask for an inpainting model. Raises
    ValueError for a mesh without texture.
    """
    _check_textured(baked)
    seen = (baked.covered & ~baked.unseen).cpu().numpy()
    flags = np.repeat(seen[..., None].astype(np.float32), 3, axis=2)
    fill_around_charts(flags, baked.covered.cpu().numpy())
    painted = replace(baked.mesh.to("cpu"), texture=torch.from_numpy(flags), vertex_colors=None)
    shown = render_mesh(painted, cameras, supersample=_SUPERSAMPLE, on_step=on_step)
    # Over white, 1 is background or seen surface.
    return (1 - shown.images[..., 0]).clamp(0, 1).to(baked.mesh.vertices.device)


def paint_unseen(
    baked: BakedTexture,
    painted: OrbitViews,
    config: TextureConfig | None = None,
    *,
    weights: Tensor | None = None,
    on_step: OnStep | None = None,
) -> BakedTexture:
    """Bake pictures in which the unseen parts were painted onto the unseen texels.

    painted: from any cameras in the mesh's world; each is levelled to the texture by what both
    show. weights: (V, H, W) in [0, 1] as for `bake`; also 0 where a picture has nothing to say.
    on_step: called with (done, total) several times a second; may raise to cancel.

    Seen texels keep their colours to the bit. Unseen ones that no picture shows are filled anew
    from what is around them. The result's certainties are those after painting, so that its
    `unseen` tells what is left; its gains are the painted pictures'.
    Raises ValueError for a mesh without texture, and weights of a wrong shape.
    """
    config = replace(config or TextureConfig(), anchor_view=None)
    _check_textured(baked)
    check_anchor(config, painted)
    assert baked.mesh.texture is not None
    size = len(baked.covered)
    surface = SurfaceTexels(baked.mesh, size, Progress(on_step, 1))
    before = baked.mesh.texture.detach().cpu().float().numpy().reshape(-1, 3)[surface.texels]
    certainties = baked.certainties.cpu().numpy().reshape(-1)[surface.texels]
    unseen = np.flatnonzero(certainties < SURELY_SEEN)
    parts = list(chunks(len(unseen), len(painted)))
    progress = Progress(on_step, len(painted) + len(parts) + 2 + FILL_STEPS)
    witness = prepare_witness(
        baked.mesh, painted, config.feather_pixels, weights=weights, progress=progress
    )
    if config.level:
        witness = _levelled_to_texture(witness, surface, before, certainties)
    progress.step()
    colors, found = before.copy(), np.zeros_like(certainties)
    after = np.where(certainties < SURELY_SEEN, 0, certainties)
    for part in parts:
        rows = unseen[part]
        arrays = (*surface.place(rows), *witness.arrays, config.outlier_spread)
        colors[rows], sure = blend_votes(*arrays)
        after[rows], found[rows] = sure, eased(sure)
        progress.step()
    unpainted = np.where(certainties < SURELY_SEEN, 1 - found, 0)
    spread_to_unsure(
        surface.place, colors, after, unpainted, progress, exact_edges=config.exact_edges
    )
    share = _inside(certainties)[unseen, None]
    result = before.copy()
    result[unseen] = np.clip((1 - share) * before[unseen] + share * colors[unseen], 0, 1)
    known = certainties.copy()
    known[unseen] = np.maximum(certainties[unseen], found[unseen])
    texture, covered, certainty_map = surface.as_maps(result, known)
    fill_around_charts(texture, covered, progress)
    progress.finish()
    device = baked.mesh.vertices.device
    return BakedTexture(
        replace(baked.mesh, texture=torch.from_numpy(texture).to(device)),
        baked.covered,
        torch.from_numpy(certainty_map).to(device),
        torch.from_numpy(witness.gains).to(device),
    )


def _inside(certainties: np.ndarray) -> np.ndarray:
    """From 0 at the border of what was seen to 1 where nothing was."""
    share = np.clip(1 - certainties / SURELY_SEEN, 0, 1)
    return share * share * (3 - 2 * share)


def _levelled_to_texture(
    witness: Witness, surface: SurfaceTexels, colors: np.ndarray, certainties: np.ndarray
) -> Witness:
    """The painted pictures with gains to the texture's tone: it is the anchor among them."""
    sure = np.flatnonzero(certainties > 0.99)
    sure = sure[:: max(1, len(sure) // _LEVELLING_SAMPLES)]
    if len(sure) == 0:
        return witness
    votes = collect_votes(*surface.place(sure), *witness.arrays)
    texture = np.ones((len(sure), 1, votes.shape[2]), dtype=np.float32)
    texture[:, 0, :3] = colors[sure]
    gains = solve_gains(np.concatenate([votes, texture], axis=1), anchor=votes.shape[1])
    return replace(witness, gains=gains[:-1])


def _check_textured(baked: BakedTexture) -> None:
    if baked.mesh.texture is None or baked.mesh.uvs is None:
        raise ValueError("the mesh has no texture: only textures can be painted")
