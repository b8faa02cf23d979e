"""Settings of the texture bake."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TextureConfig:
    """Settings of the texture bake."""

    size: int = 2048  # texels along each side of the texture; 0: colours for the vertices instead
    feather_pixels: float = 4.0  # how far from an edge a picture's pixel is fully trusted
    level: float = 1.0  # how far exposure and tint are evened out between the views, in [0, 1]
    # The view whose tone the others are levelled to, or None for the mean of all. A reference
    # picture takes its place.
    anchor_view: int | None = None
    # Whether pixels just inside a silhouette are as good as any, as in renders; else colours for
    # unseen parts come from further in.
    exact_edges: bool = False
    outlier_spread: float = 0.1  # distance in colour at which a dissenting vote counts a quarter
    # How much of the colour a reference picture takes where it sees the surface well, in [0, 1];
    # 0 leaves it out.
    reference_weight: float = 1.0
    reference_feather: float = 12.0  # how far from an edge it fully decides, in the views' pixels

    def __post_init__(self) -> None:
        if self.size != 0 and not 64 <= self.size <= 16384:
            raise ValueError(
                f"texture size is {self.size}, expected 64 to 16384 texels, or 0 for colours of "
                "the vertices"
            )
        if self.feather_pixels < 1 or self.reference_feather < 1 or self.outlier_spread <= 0:
            raise ValueError(
                f"feather_pixels is {self.feather_pixels}, reference_feather "
                f"{self.reference_feather} and outlier_spread {self.outlier_spread}: expected at "
                "least 1, at least 1, and more than 0"
            )
        if not 0 <= self.level <= 1:
            raise ValueError(f"level is {self.level}, expected 0 (as they are) to 1 (all alike)")
        if not 0 <= self.reference_weight <= 1:
            raise ValueError(
                f"reference_weight is {self.reference_weight}, expected 0 (off) to 1 (it decides)"
            )
        if self.anchor_view is not None and self.anchor_view < 0:
            raise ValueError(f"anchor_view is {self.anchor_view}, expected 0 or more, or None")


_WIDEST = 4.0  # times as far may votes dissent, where views surely disagree


def suited_to_doubt(
    config: TextureConfig, doubtful: float, *, has_reference: bool = False
) -> TextureConfig:
    """The settings for views that disagree: for 0 `config` itself, for 1 those that surely do.

    Each part of the surface then keeps the tone of the views that face it, and dissenting votes
    are not dropped: among views that paint a detail each in its own place there is no outlier.
    A reference picture's tone is the right one, so the views come to it all the same.
    """
    return replace(
        config,
        level=config.level * (1 if has_reference else 1 - doubtful),
        outlier_spread=config.outlier_spread * _WIDEST**doubtful,
    )
