"""The renderers that a dataset can be drawn with, behind one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import Mesh
from hi3d_core.optional import MissingDependency
from hi3d_core.render import MeshRender, Shading, render_mesh

NAMES = ("moderngl", "bpy", "cpu")


class Renderer(Protocol):
    """Draws meshes as one scene, as `hi3d_core.render.render_mesh` does."""

    name: str

    def render(self, meshes: list[Mesh], cameras: Cameras) -> MeshRender:
        """Colours over white, alphas, depths and normals of all views, on the CPU."""

    def close(self) -> None:
        """Free what it holds on the graphics card."""


class CpuRenderer:
    """The library's own renderer."""

    name = "cpu"

    def __init__(self, supersample: int, shading: Shading) -> None:
        self._supersample = supersample
        self._shading = shading

    def render(self, meshes: list[Mesh], cameras: Cameras) -> MeshRender:
        return render_mesh(meshes, cameras, supersample=self._supersample, shading=self._shading)

    def close(self) -> None:
        pass


def open_renderer(name: str, supersample: int, shading: Shading) -> Renderer:
    """A renderer by its name, one of `NAMES`.

    Raises MissingDependency, which says what to install, where it can't run; ValueError for an
    unknown name.
    """
    if name == "cpu":
        return CpuRenderer(supersample, shading)
    if name == "moderngl":
        from .moderngl_renderer import ModernglRenderer

        return ModernglRenderer(supersample, shading)
    if name == "bpy":
        from .bpy_renderer import BpyRenderer

        return BpyRenderer(supersample, shading)
    raise ValueError(f"renderer is {name!r}, expected auto or one of {', '.join(NAMES)}")


def choose_renderer(name: str, say: Callable[[str], None] = print) -> str:
    """Settle "auto": moderngl where a graphics card draws, else the CPU. Other names are tried.

    Mesa's OpenGL on the CPU draws the same pictures in about twice our own renderer's time, so
    it has to be asked for, and so has Blender, the most faithful and by far the slowest.
    Raises MissingDependency or ValueError as `open_renderer`.
    """
    if name != "auto":
        open_renderer(name, 1, "unlit").close()
        return name
    from .moderngl_renderer import ModernglRenderer

    try:
        renderer = ModernglRenderer(1, "unlit")
    except MissingDependency as error:
        say(f"{error} Going on with the CPU.")
        return "cpu"
    renderer.close()
    return "moderngl" if renderer.is_hardware else "cpu"
