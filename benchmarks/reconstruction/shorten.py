"""Settings made cheaper or moved along one axis, for warming up and for tables of cost."""

from __future__ import annotations

from dataclasses import replace

from hi3d_core.pipeline import ReconstructConfig


def shortened(config: ReconstructConfig, share: float) -> ReconstructConfig:
    """The same settings with this share of the iterations, two at least, of both fits."""

    def fewer(iterations: int) -> int:
        return max(2, round(share * iterations))

    levels = tuple(
        replace(level, iterations=fewer(level.iterations)) for level in config.surface.levels
    )
    return replace(
        config,
        splat=replace(config.splat, iterations=fewer(config.splat.iterations)),
        surface=replace(config.surface, levels=levels),
    )


def with_pictures(config: ReconstructConfig, size: int) -> ReconstructConfig:
    """The same with pictures of `size` pixels in the last level and a splat fitted at it.

    The levels before keep their ratio to the last.
    """
    last = config.surface.levels[-1].picture
    levels = tuple(
        replace(level, picture=max(32, round(level.picture * size / last)))
        for level in config.surface.levels
    )
    return replace(
        config,
        splat=replace(config.splat, size=size),
        surface=replace(config.surface, levels=levels),
    )


def with_nodes(config: ReconstructConfig, nodes: int) -> ReconstructConfig:
    """The same on one level alone, of `nodes` nodes on the longest side, without hollows.

    Those are looked for on the coarsest level, which is small whatever the last one is.
    """
    level = replace(config.surface.levels[-1], nodes=nodes)
    return replace(config, surface=replace(config.surface, levels=(level,), cavity_rounds=0))
