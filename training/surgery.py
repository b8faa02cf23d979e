"""Where training starts: Stable Video Diffusion's UNet, fitted to what Hi3D's stages are told.

Stage 1 takes its weights as they are: the aesthetic score inherits the columns of the frame rate,
the elevation those of the motion bucket. Stage 2 drops the frame rate, has new columns for the
elevation and new channels for the depth, all zero, so that it starts as if they were not there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hi3d_core.networks.video_unet import VideoUNet
from hi3d_core.video_model import Stage
from hi3d_core.weights.load import Holding, plan_network
from hi3d_core.weights.recognise import recognise
from hi3d_core.weights.tensor_file import open_tensors

_log = logging.getLogger(__name__)

_WIDTH = 256  # columns of each number told to the network
_DEPTH_CHANNELS = 9
_NOISY_CHANNELS = 4
LABEL, INPUT = "add_embedding.linear_1.weight", "conv_in.weight"


def refiner_label(svd: Tensor) -> Tensor:
    """SVD's (E, 768) first layer of the vector's embedding -> the refiner's (E, 512).

    SVD's columns are frame rate, motion bucket, noise level; ours elevation (zero) and noise level.
    Raises ValueError for another width.
    """
    if svd.ndim != 2 or svd.shape[1] != 3 * _WIDTH:
        raise ValueError(
            f"{LABEL} is {tuple(svd.shape)}, expected (channels, {3 * _WIDTH}) as SVD's: start "
            "from Stable Video Diffusion's checkpoint"
        )
    return torch.cat([svd.new_zeros(len(svd), _WIDTH), svd[:, 2 * _WIDTH :]], dim=1)


def refiner_input(svd: Tensor) -> Tensor:
    """SVD's (C, 8, 3, 3) first convolution -> the refiner's (C, 17, 3, 3).

    SVD's input is noisy latents and conditioning latents; the depth's channels (zero) come between.
    Raises ValueError for another number of channels.
    """
    if svd.ndim != 4 or svd.shape[1] != 2 * _NOISY_CHANNELS:
        raise ValueError(
            f"{INPUT} is {tuple(svd.shape)}, expected (channels, {2 * _NOISY_CHANNELS}, 3, 3) as "
            "SVD's: start from Stable Video Diffusion's checkpoint"
        )
    depth = svd.new_zeros(len(svd), _DEPTH_CHANNELS, *svd.shape[2:])
    return torch.cat([svd[:, :_NOISY_CHANNELS], depth, svd[:, _NOISY_CHANNELS:]], dim=1)


def start_from_svd(network: VideoUNet, svd: Mapping[str, Tensor], stage: Stage) -> list[str]:
    """Fill a stage's UNet with SVD's weights.

    svd: tensors under our names (diffusers'), as `read_svd_unet` gives them.
    Returns the names that SVD lacks: they keep the values that the network has.
    Raises ValueError for tensors of another shape, naming them.
    """
    state = dict(svd)
    if stage == "refiner":
        for name, change in ((LABEL, refiner_label), (INPUT, refiner_input)):
            if name in state:
                state[name] = change(state[name])
    targets = network.state_dict()
    _check_shapes(state, targets)
    new = [name for name in targets if name not in state]
    for name in new:
        _log.warning("SVD's checkpoint has no %s: it starts as it is", name)
    with torch.no_grad():
        for name, target in targets.items():
            if name in state:
                target.copy_(state[name])
    return new


def read_svd_unet(path: str | Path, head_channels: int = 64) -> dict[str, Tensor]:
    """SVD's UNet from its checkpoint or diffusers' `unet` folder, float32, under our names.

    head_channels: of one attention head, which no shape tells.
    Raises ValueError for files that can't be read, CheckpointMismatch where they hold no such UNet.
    """
    with open_tensors(path) as file:
        contents = recognise(file)
        prefix = contents.prefixes.get("unet")
        if prefix is None:
            raise ValueError(
                f"{path} holds no video UNet: start from Stable Video Diffusion's checkpoint"
            )
        holding = Holding(file, prefix, contents.official)
        plan = plan_network("unet", holding, {"head_channels": head_channels})
        return {key: plan.read(key, torch.float32) for key in plan.network.state_dict()}


def _check_shapes(state: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        if name not in targets:
            raise ValueError(f"SVD's {name} has no place in this network: is it of another width?")
        if tensor.shape != targets[name].shape:
            raise ValueError(
                f"SVD's {name} is {tuple(tensor.shape)}, expected {tuple(targets[name].shape)}: "
                "the network must have SVD's width"
            )
