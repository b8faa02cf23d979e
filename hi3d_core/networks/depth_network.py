"""DPT-hybrid: relative depth of single pictures (Ranftl et al. 2021, released as MiDaS 3.0).

A ResNet's features become tokens; a transformer's tokens, of two of its layers, and the ResNet's
first two levels are fused from coarse to fine. transformers' network takes square pictures of one
size; this one takes any whose sides are multiples of 32. Letters: N pictures, H and W their pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers import DPTConfig, DPTForDepthEstimation

_PATCH = 16  # pixels a token
_STEP = 32  # pixels of the coarsest level's cells


@dataclass(frozen=True)
class DepthConfig:
    """What tells one DPT-hybrid from another; the defaults are the released one's.

    width, layers, heads: of the transformer. grid: side in tokens of its learned positions.
    stem_channels, stage_channels, stage_layers: of the ResNet, channels multiples of 32 (of 128 in
        the stages, whose narrow convolutions have a quarter).
    token_channels: of the two levels made from tokens. fusion_channels: of the fused levels.

    Raises ValueError for channels that can't be split.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    grid: int = 24
    stem_channels: int = 64
    stage_channels: tuple[int, ...] = (256, 512, 1024)
    stage_layers: tuple[int, ...] = (3, 4, 9)
    token_channels: tuple[int, ...] = (768, 768)
    fusion_channels: int = 256

    def __post_init__(self) -> None:
        for name in ("stage_channels", "stage_layers", "token_channels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists
        if len(self.stage_channels) != 3 or len(self.stage_layers) != 3:
            raise ValueError(
                f"the stages are {self.stage_channels}, {self.stage_layers}, expected three"
            )
        if self.stem_channels % 32 or any(channels % 128 for channels in self.stage_channels):
            raise ValueError(
                f"stem_channels is {self.stem_channels}, stage_channels {self.stage_channels}, "
                "expected multiples of 32 and of 128"
            )
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}, expected a multiple of heads, {self.heads}")

    @property
    def tapped_layers(self) -> tuple[int, int]:
        """The transformer's layers whose tokens are used."""
        return self.layers * 3 // 4 - 1, self.layers - 1


DPT_HYBRID = DepthConfig()


class DepthNetwork(DPTForDepthEstimation):
    """DPT-hybrid for pictures of any size. Tensor names are transformers'.

    settings: what it was built from.
    """

    def __init__(self, settings: DepthConfig) -> None:
        super().__init__(_transformers_config(settings))
        self.settings = settings

    def forward(self, images: Tensor) -> Tensor:
        """Relative inverse depth, (N, 3, H, W) in [-1, 1] -> (N, H, W); see `estimate`."""
        # Positions are resized to the picture's grid, bilinearly, as MiDaS does.
        embedded = self.dpt.embeddings(images, interpolate_pos_encoding=True)
        tokens, levels = embedded[0], list(embedded[1])
        for index, layer in enumerate(self.dpt.encoder.layer):
            output = layer(tokens)
            tokens = output[0] if isinstance(output, tuple) else output  # transformers 4, 5
            if index in self.settings.tapped_layers:
                levels.append(tokens)
        height, width = images.shape[2] // _PATCH, images.shape[3] // _PATCH
        return self.head(self.neck(levels, height, width))


def build_depth_network(settings: DepthConfig = DPT_HYBRID) -> DepthNetwork:
    """The network without trained weights; on torch's current default device."""
    return DepthNetwork(settings)


def estimate(network: DepthNetwork, images: Tensor) -> Tensor:
    """Raw relative inverse depth: near is large, 0 is the least, scale and offset are unknown.

    images: (N, 3, H, W) in [-1, 1] on the weights' device, H and W multiples of 32 (trained at
        384).
    Returns (N, H, W). Raises ValueError for other shapes.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images is {tuple(images.shape)}, expected (N, 3, height, width)")
    height, width = images.shape[2:]
    if height % _STEP or width % _STEP or not height * width:
        raise ValueError(
            f"images are {width} x {height} pixels, expected multiples of {_STEP}: resize them"
        )
    return network(images.contiguous())


def _transformers_config(settings: DepthConfig) -> DPTConfig:
    backbone = {  # of a BitConfig; nothing is looked up by a name
        "embedding_size": settings.stem_channels,
        "hidden_sizes": list(settings.stage_channels),
        "depths": list(settings.stage_layers),
        "layer_type": "bottleneck",
        "global_padding": "same",
        "embedding_dynamic_padding": True,
        "out_features": ["stage1", "stage2", "stage3"],
    }
    return DPTConfig(
        is_hybrid=True,
        backbone_config=backbone,
        backbone_featmap_shape=[1, settings.stage_channels[-1], settings.grid, settings.grid],
        backbone_out_indices=[0, 1, *settings.tapped_layers],
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=4 * settings.width,
        layer_norm_eps=1e-6,  # the released network's; transformers' own files say 1e-12
        image_size=_PATCH * settings.grid,
        patch_size=_PATCH,
        readout_type="project",
        reassemble_factors=[1, 1, 1, 0.5],
        neck_hidden_sizes=[*settings.stage_channels[:2], *settings.token_channels],
        neck_ignore_stages=[0, 1],
        fusion_hidden_size=settings.fusion_channels,
    )
