"""The denoiser of both diffusion stages: Stable Video Diffusion's UNet over the frames of an orbit.

It is diffusers' own network, with these differences: the conditioning vector enters as it is, not
as numbers to embed; GroupNorm's eps is the official one in all residual blocks; a single context
token is attended to without queries and keys, which can't change the result (a softmax over one key
is 1); the spatial and temporal branches are mixed in one pass; feed-forward layers can work in
parts; and the outermost level can run alone, on kept features (`feature_reuse.py`).

Letters: B orbits in the batch, F frames, C channels, h and w the latent grid, L context tokens, D
their width, A the vector's width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import AlphaBlender, ResnetBlock2D, TemporalResnetBlock
from torch import Tensor, nn

from .feature_reuse import FeatureReuse

# The official one, which diffusers has in some of them; transformers' norms have 1e-6 in both.
_RESIDUAL_EPS = 1e-5
_MOST_ROWS = 2**15  # sequences that attention kernels take at once; CUDA's limit is 65,535


@dataclass(frozen=True)
class VideoUNetConfig:
    """What tells one video UNet from another; the defaults are stage 1's.

    in_channels: of the noisy latents (4) and of what is laid beside them.
    vector_channels: A. block_channels: of each level, outermost first, multiples of 32.
    head_channels: of one attention head. context_channels: D.
    layers_per_block: residual blocks a level. transformer_layers: blocks a transformer.
    frames: of an orbit. norm_groups: of every GroupNorm (see `VaeConfig`), a divisor of 32.
    outer_attention: whether the outermost level has transformers, as the official ones do; on a
        CPU their attention over all of a frame's latents is half of a small network's time.

    Raises ValueError for channels that can't be split into groups or heads, or fewer than 2 levels.
    """

    in_channels: int = 8
    vector_channels: int = 768
    block_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    head_channels: int = 64
    context_channels: int = 1024
    layers_per_block: int = 2
    transformer_layers: int = 1
    frames: int = 16
    norm_groups: int = 32
    outer_attention: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_channels", tuple(self.block_channels))  # JSON has lists
        if len(self.block_channels) < 2:
            raise ValueError(f"block_channels is {self.block_channels}, expected 2 levels or more")
        if self.norm_groups < 1 or 32 % self.norm_groups:
            raise ValueError(f"norm_groups is {self.norm_groups}, expected a divisor of 32")
        for channels in self.block_channels:
            if channels % 32 or channels % self.head_channels:
                raise ValueError(
                    f"block_channels is {self.block_channels}, expected multiples of "
                    f"32 and of head_channels, {self.head_channels}"
                )

    def attends(self, level: int) -> bool:
        """Whether a level, 0 the outermost, has transformers. The innermost never has."""
        return self.outer_attention if level == 0 else level < len(self.block_channels) - 1


ORBIT_UNET = VideoUNetConfig()
REFINER_UNET = VideoUNetConfig(in_channels=17, vector_channels=512)


class VideoUNet(UNetSpatioTemporalConditionModel):
    """The network F of `diffusion/precondition.py`. Tensor names are diffusers'.

    settings: what it was built from.
    """

    def __init__(self, settings: VideoUNetConfig) -> None:
        attends = [settings.attends(level) for level in range(len(settings.block_channels))]
        super().__init__(
            in_channels=settings.in_channels,
            out_channels=4,
            down_block_types=tuple(
                f"{'CrossAttn' if each else ''}DownBlockSpatioTemporal" for each in attends
            ),
            up_block_types=tuple(
                f"{'CrossAttn' if each else ''}UpBlockSpatioTemporal" for each in attends[::-1]
            ),
            block_out_channels=settings.block_channels,
            projection_class_embeddings_input_dim=settings.vector_channels,
            layers_per_block=settings.layers_per_block,
            cross_attention_dim=settings.context_channels,
            transformer_layers_per_block=settings.transformer_layers,
            num_attention_heads=tuple(
                channels // settings.head_channels for channels in settings.block_channels
            ),
            num_frames=settings.frames,
        )
        self.settings = settings
        self.add_time_proj = nn.Identity()
        for module in list(self.modules()):
            if isinstance(module, ResnetBlock2D | TemporalResnetBlock):
                module.norm1.eps = module.norm2.eps = _RESIDUAL_EPS
            elif isinstance(module, nn.GroupNorm):
                module.num_groups = settings.norm_groups
            elif isinstance(module, Attention):
                module.set_processor(FrameAttention())
            elif isinstance(getattr(module, "time_mixer", None), AlphaBlender):
                module.time_mixer = BranchMixer()
            for name, child in list(module.named_children()):
                if isinstance(child, FeedForward):
                    setattr(module, name, FeedForwardInParts(child))

    def forward(
        self,
        latents: Tensor,
        c_noise: Tensor,
        context: Tensor,
        vector: Tensor,
        *,
        reuse: FeatureReuse | None = None,
    ) -> Tensor:
        """Predict v for noisy latents.

        latents: (B, F, C, h, w), the noisy ones scaled by c_in and beside them the condition; h and
            w multiples of 8 (of 2 per level but the last).
        c_noise: the noise level as the network knows it, a scalar or (B,).
        context: (B, L, D). vector: (B, A).
        reuse: features kept from earlier calls; this call may then run its outermost level only.

        Returns (B, F, 4, h, w), contiguous. Raises ValueError for shapes that don't fit.
        """
        self._check(latents, context, vector)
        batch, frames = latents.shape[:2]
        hidden = self.conv_in(latents.flatten(0, 1).contiguous())
        condition = {
            "temb": self._embed(c_noise, vector, hidden).repeat_interleave(frames, dim=0),
            "encoder_hidden_states": context.repeat_interleave(frames, dim=0),
            # Blocks read the number of frames from it; `BranchMixer` does not read its values.
            "image_only_indicator": hidden.new_zeros(batch, frames),
        }
        kept = None if reuse is None else reuse.recall()
        if kept is None:
            hidden, skips = self._deep(hidden, condition)
            if reuse is not None:
                reuse.keep(hidden)
        else:
            skips = self._outer_skips(hidden, condition)
            hidden = _fitting(kept, hidden)
        hidden = _run(self.up_blocks[-1], condition, hidden, res_hidden_states_tuple=skips)
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return hidden.contiguous().unflatten(0, (batch, frames))

    def _embed(self, c_noise: Tensor, vector: Tensor, like: Tensor) -> Tensor:
        """(B, E): noise level and conditioning vector together."""
        levels = self.time_proj(c_noise.to(like.device, torch.float32).expand(len(vector)))
        return self.time_embedding(levels.to(like.dtype)) + self.add_embedding(
            self.add_time_proj(vector.to(like.dtype))
        )

    def _deep(
        self, hidden: Tensor, condition: dict[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All but the last up block: what enters it, and its skip connections."""
        skips = [hidden]
        for block in self.down_blocks:
            hidden, more = _run(block, condition, hidden)
            skips += more
        hidden = _run(self.mid_block, condition, hidden)
        for block in self.up_blocks[:-1]:
            count = len(block.resnets)
            hidden = _run(block, condition, hidden, res_hidden_states_tuple=tuple(skips[-count:]))
            del skips[-count:]  # frees their memory
        return hidden, tuple(skips)

    def _outer_skips(self, hidden: Tensor, condition: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The skip connections of the last up block: the first down block, not downsampled."""
        block = self.down_blocks[0]
        indicator = condition["image_only_indicator"]
        skips = [hidden]
        attentions = block.attentions if self.settings.outer_attention else ()
        for residual, attention in zip_longest(block.resnets, attentions):
            hidden = residual(hidden, condition["temb"], image_only_indicator=indicator)
            if attention is not None:
                hidden = attention(
                    hidden,
                    encoder_hidden_states=condition["encoder_hidden_states"],
                    image_only_indicator=indicator,
                    return_dict=False,
                )[0]
            skips.append(hidden)
        return tuple(skips)

    def _check(self, latents: Tensor, context: Tensor, vector: Tensor) -> None:
        settings, multiple = self.settings, 2 ** (len(self.settings.block_channels) - 1)
        if latents.ndim != 5 or latents.shape[2] != settings.in_channels:
            raise ValueError(
                f"latents is {tuple(latents.shape)}, expected (B, F, {settings.in_channels}, h, w)"
                ": the orbit's UNet takes 8 channels, the refiner's 17"
            )
        if latents.shape[3] % multiple or latents.shape[4] % multiple:
            raise ValueError(
                f"latents is {tuple(latents.shape)}, expected sides that are multiples of "
                f"{multiple}: pictures of multiples of 64 pixels give these"
            )
        batch = len(latents)
        if context.ndim != 3 or context.shape[::2] != (batch, settings.context_channels):
            raise ValueError(
                f"context is {tuple(context.shape)}, expected ({batch}, tokens, "
                f"{settings.context_channels})"
            )
        if vector.shape != (batch, settings.vector_channels):
            raise ValueError(
                f"vector is {tuple(vector.shape)}, expected {(batch, settings.vector_channels)}: "
                "the orbit's is 768 wide, the refiner's 512"
            )


class BranchMixer(nn.Module):
    """sigmoid(mix_factor) of the spatial branch, the rest of the temporal one.

    Stands in for diffusers' `AlphaBlender`, whose indicator of single images is always 0 here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(
        self, x_spatial: Tensor, x_temporal: Tensor, image_only_indicator: Tensor | None = None
    ) -> Tensor:
        # The spatial branch comes first as its strides, frame by frame, are those needed next.
        return torch.lerp(x_spatial, x_temporal, torch.sigmoid(-self.mix_factor).to(x_spatial))


class FrameAttention(AttnProcessor2_0):
    """Scaled-dot-product attention, with a short way for one token and for very many sequences."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *arguments: Any,
        **options: Any,
    ) -> Tensor:
        """(N, T, C), and (N, L, D) or None to attend to itself -> (N, T, C).

        If L is 1 and gradients are off, (N, 1, C): the same for all T. With gradients, queries and
        keys take part, so that they get theirs, which is zero.
        """
        context = encoder_hidden_states
        if context is not None and context.shape[1] == 1 and not torch.is_grad_enabled():
            return attn.to_out[1](attn.to_out[0](attn.to_v(context)))
        if len(hidden_states) <= _MOST_ROWS:
            return super().__call__(attn, hidden_states, context, *arguments, **options)
        parts = hidden_states.split(_MOST_ROWS)
        contexts = [None] * len(parts) if context is None else context.split(_MOST_ROWS)
        return torch.cat(
            [
                super(FrameAttention, self).__call__(attn, part, its, *arguments, **options)
                for part, its in zip(parts, contexts, strict=True)
            ]
        )


class FeedForwardInParts(nn.Module):
    """diffusers' feed-forward layer, on some rows at a time: a row of channels depends on no other.

    diffusers' own chunks are slices across the frames, whose rows don't lie together; torch then
    multiplies them by thousands of small matrices.

    parts: how many; 1 computes all at once.
    """

    def __init__(self, whole: FeedForward) -> None:
        super().__init__()
        self.net = whole.net
        self.parts = 1

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(N, T, C) -> (N, T, C)."""
        if self.parts == 1:
            return self._compute(hidden_states)
        rows = hidden_states.flatten(0, 1).tensor_split(self.parts)
        return torch.cat([self._compute(part) for part in rows]).view_as(hidden_states)

    def _compute(self, rows: Tensor) -> Tensor:
        for layer in self.net:
            rows = layer(rows)
        return rows


def build_video_unet(settings: VideoUNetConfig) -> VideoUNet:
    """A video UNet with random weights; with none inside `torch.device("meta")`."""
    return VideoUNet(settings)


def chunk_feed_forward(unet: VideoUNet, parts: int) -> None:
    """Have the feed-forward layers compute in so many parts, for less memory.

    parts: 1 computes all at once. The result stays the same. Raises ValueError if it is below 1.
    """
    if parts < 1:
        raise ValueError(f"parts is {parts}, expected at least 1")
    for module in unet.modules():
        if isinstance(module, FeedForwardInParts):
            module.parts = parts


def _run(block: nn.Module, condition: dict[str, Tensor], hidden: Tensor, **more: Any) -> Any:
    """Call one of diffusers' blocks; those without attention don't take the context."""
    if not getattr(block, "has_cross_attention", False):
        condition = {name: each for name, each in condition.items() if "encoder" not in name}
    return block(hidden_states=hidden, **condition, **more)


def _fitting(kept: Tensor, hidden: Tensor) -> Tensor:
    if kept.shape[0] != hidden.shape[0] or kept.shape[2:] != hidden.shape[2:]:
        raise ValueError(
            f"the features kept are {tuple(kept.shape)}, of other latents than these "
            f"{tuple(hidden.shape)}: give each its own slot, and each run its own FeatureReuse"
        )
    return kept
