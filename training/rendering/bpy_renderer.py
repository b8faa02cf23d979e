"""Pictures of meshes by Blender's Cycles (the package bpy): colour and alpha, path traced.

Shading "soft" is what Hi3D's and SyncDreamer's data come closest to: matt surfaces under an even
white sky, with light that bounces between them; "unlit" shows the colours as they are. Depths and
normals are the library's own.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hi3d_core.cameras import Cameras, opengl_to_opencv
from hi3d_core.datatypes import Mesh
from hi3d_core.optional import MissingDependency
from hi3d_core.render import MeshRender, Shading, over_white, render_mesh
from hi3d_core.srgb import srgb_to_linear

_SAMPLES = 16  # light paths a pixel for each step of supersample
_PLAIN_GREY = 0.72


class BpyRenderer:
    """See the module. Raises MissingDependency where bpy is missing."""

    name = "bpy"

    def __init__(self, supersample: int, shading: Shading) -> None:
        try:
            import bpy
        except ImportError as error:
            raise MissingDependency(
                f"Drawing by Blender needs the package bpy, which can't be imported ({error}): "
                "pip install bpy (each release fits one version of Python alone). Without it, "
                "OpenGL or the CPU draws."
            ) from error
        self._bpy = bpy
        self._supersample = supersample
        self._shading = shading

    def render(self, meshes: list[Mesh], cameras: Cameras) -> MeshRender:
        geometry = render_mesh(meshes, cameras, supersample=self._supersample)
        scene = self._scene(cameras)
        for mesh in meshes:
            self._add(scene, mesh)
        pixels = [self._shot(scene, pose) for pose in opengl_to_opencv(cameras.camera_to_world)]
        rgba = torch.from_numpy(np.stack(pixels)).float() / 255
        return MeshRender(
            over_white(rgba[..., :3], rgba[..., 3]),
            rgba[..., 3].contiguous(),
            cameras,
            geometry.depths,
            normals=geometry.normals,
        )

    def close(self) -> None:
        pass

    def _scene(self, cameras: Cameras) -> Any:
        """An empty scene with Cycles, our camera and an even white sky."""
        bpy = self._bpy
        bpy.ops.wm.read_factory_settings(use_empty=True)
        scene = bpy.context.scene
        scene.render.engine = "CYCLES"
        scene.cycles.samples = _SAMPLES * self._supersample
        scene.cycles.use_denoising = False
        scene.cycles.seed = 0
        scene.cycles.pixel_filter_type = "BOX"  # a pixel is its own square, as elsewhere
        scene.render.film_transparent = True
        scene.render.resolution_x, scene.render.resolution_y = cameras.width, cameras.height
        scene.render.resolution_percentage = 100
        scene.view_settings.view_transform = "Standard"
        settings = scene.render.image_settings
        settings.file_format, settings.color_mode, settings.color_depth = "PNG", "RGBA", "8"
        world = bpy.data.worlds.new("sky")
        world.use_nodes = True
        sky = world.node_tree.nodes.get("Background")
        sky.inputs["Color"].default_value = (1, 1, 1, 1)
        sky.inputs["Strength"].default_value = 1.0
        scene.world = world
        lens = bpy.data.cameras.new("camera")
        lens.sensor_fit = "HORIZONTAL"
        lens.angle = 2 * math.atan(cameras.width / (2 * float(cameras.intrinsics[0, 0, 0])))
        lens.clip_start = 0.01
        scene.camera = bpy.data.objects.new("camera", lens)
        scene.collection.objects.link(scene.camera)
        return scene

    def _add(self, scene: Any, mesh: Mesh) -> None:
        bpy = self._bpy
        vertices = mesh.vertices.detach().cpu().float().numpy()
        faces = mesh.faces.cpu().numpy()
        data = bpy.data.meshes.new("part")
        data.from_pydata(vertices.tolist(), [], faces.tolist())
        texture = mesh.texture if mesh.uvs is not None else None
        if texture is not None and mesh.uvs is not None:
            uvs = mesh.uvs.detach().cpu().float()[mesh.faces.cpu().reshape(-1)].clone()
            uvs[:, 1] = 1 - uvs[:, 1]  # Blender's pictures begin at the bottom
            data.uv_layers.new(name="uv").data.foreach_set("uv", uvs.numpy().reshape(-1))
        else:
            plain = torch.full((len(vertices), 3), _PLAIN_GREY)
            colors = plain if mesh.vertex_colors is None else mesh.vertex_colors.detach().cpu()
            linear = torch.cat([srgb_to_linear(colors.float()), torch.ones(len(colors), 1)], dim=1)
            layer = data.color_attributes.new(name="paint", type="FLOAT_COLOR", domain="POINT")
            layer.data.foreach_set("color", linear.numpy().reshape(-1))
        data.materials.append(self._material(texture))
        data.update()
        scene.collection.objects.link(bpy.data.objects.new("part", data))

    def _material(self, texture: Tensor | None) -> Any:
        material = self._bpy.data.materials.new("paint")
        material.use_nodes = True
        nodes, links = material.node_tree.nodes, material.node_tree.links
        nodes.clear()
        if texture is None:
            color = nodes.new("ShaderNodeVertexColor")
            color.layer_name = "paint"
        else:
            color = nodes.new("ShaderNodeTexImage")
            color.image = self._picture(texture)
        kind = "ShaderNodeEmission" if self._shading == "unlit" else "ShaderNodeBsdfDiffuse"
        surface, output = nodes.new(kind), nodes.new("ShaderNodeOutputMaterial")
        links.new(color.outputs["Color"], surface.inputs["Color"])
        links.new(surface.outputs[0], output.inputs["Surface"])
        return material

    def _picture(self, texture: Tensor) -> Any:
        height, width = texture.shape[:2]
        picture = self._bpy.data.images.new("paint", width, height)
        pixels = torch.ones(height, width, 4)
        pixels[..., :3] = texture.detach().cpu().flip(0)
        picture.pixels.foreach_set(pixels.numpy().reshape(-1))
        picture.pack()
        return picture

    def _shot(self, scene: Any, pose: Tensor) -> np.ndarray:
        """(H, W, 4) bytes with straight alpha of one view; pose: (4, 4) in OpenGL axes."""
        from mathutils import Matrix  # comes with bpy

        scene.camera.matrix_world = Matrix(pose.tolist())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "view.png"
            scene.render.filepath = str(path)
            self._bpy.ops.render.render(write_still=True)
            with Image.open(path) as picture:
                return np.asarray(picture.convert("RGBA")).copy()
