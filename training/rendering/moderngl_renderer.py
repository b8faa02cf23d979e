"""Pictures of meshes by OpenGL without a window (moderngl on EGL): a graphics card, or Mesa's CPU.

It draws what `hi3d_core.render` draws, and the same way: a picture several times too large, every
point shaded by itself, whose points are then averaged into pixels. Coverage, depth and normals
agree with the CPU's to rounding; textures are filtered by the driver, so they differ a little.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from hi3d_core.cameras import Cameras
from hi3d_core.datatypes import Mesh
from hi3d_core.normals import corner_normals
from hi3d_core.optional import MissingDependency
from hi3d_core.render import MeshRender, Shading

_NEAR, _FAR = 0.02, 100.0  # world units
_PLAIN_GREY = 0.72  # of meshes without colours, as in hi3d_core.render
_CREASE_DEGREES = 50.0
_SOFT = (0.2, 0.6, 0.25)  # ambient, lamp at the camera, sky, as in hi3d_core.render

_DRAW_VERTEX = """
#version 330
uniform mat4 world_to_clip;
uniform vec4 depth_row;  // z-depth of a world point
in vec3 position; in vec3 normal; in vec3 flat_normal; in vec3 color; in vec2 uv;
out vec3 at; out vec3 smooth_normal; flat out vec3 face_normal; out vec3 tint; out vec2 texel;
out float depth;
void main() {
    at = position; smooth_normal = normal; face_normal = flat_normal; tint = color; texel = uv;
    depth = dot(depth_row, vec4(position, 1.0));
    gl_Position = world_to_clip * vec4(position, 1.0);
}
"""
_DRAW_FRAGMENT = """
#version 330
uniform bool has_texture; uniform sampler2D picture; uniform vec3 eye; uniform vec3 light;
in vec3 at; in vec3 smooth_normal; flat in vec3 face_normal; in vec3 tint; in vec2 texel;
in float depth;
layout(location = 0) out vec4 out_color; layout(location = 1) out vec4 out_geometry;
void main() {
    vec3 to_eye = eye - at;
    vec3 n = normalize(smooth_normal) * (dot(face_normal, to_eye) < 0.0 ? -1.0 : 1.0);
    vec3 color = has_texture ? texture(picture, texel).rgb : tint;
    float facing = max(0.0, dot(n, normalize(to_eye)));
    color *= light.x + light.y * facing + light.z * (0.5 + 0.5 * n.y);
    out_color = vec4(color, 1.0);
    out_geometry = vec4(n, depth);
}
"""
_MEAN_VERTEX = """
#version 330
in vec2 corner;
void main() { gl_Position = vec4(corner, 0.0, 1.0); }
"""
_MEAN_FRAGMENT = """
#version 330
uniform sampler2D colors; uniform sampler2D geometry; uniform int points;
layout(location = 0) out vec4 out_color; layout(location = 1) out vec4 out_geometry;
void main() {
    ivec2 first = ivec2(gl_FragCoord.xy) * points;
    vec4 color = vec4(0.0), place = vec4(0.0);
    for (int j = 0; j < points; j++) for (int i = 0; i < points; i++) {
        color += texelFetch(colors, first + ivec2(i, j), 0);
        place += texelFetch(geometry, first + ivec2(i, j), 0);
    }
    float hits = max(color.a, 1.0);
    out_color = color / float(points * points);
    out_geometry = vec4(place.xyz / max(length(place.xyz), 1e-12), place.w / hits);
}
"""


class ModernglRenderer:
    """See the module. Raises MissingDependency where moderngl or EGL is missing."""

    name = "moderngl"

    def __init__(self, supersample: int, shading: Shading) -> None:
        self._gl = _context()
        self._driver = str(self._gl.info["GL_RENDERER"]).lower()
        self._points = supersample
        self._light = (1.0, 0.0, 0.0) if shading == "unlit" else _SOFT
        self._draw = self._gl.program(_DRAW_VERTEX, _DRAW_FRAGMENT)
        self._mean = self._gl.program(_MEAN_VERTEX, _MEAN_FRAGMENT)
        corners = np.array([[-1, -1], [3, -1], [-1, 3]], np.float32)  # one triangle over all
        self._everything = self._gl.vertex_array(
            self._mean, [(self._gl.buffer(corners.tobytes()), "2f", "corner")]
        )
        self._size = (0, 0)
        self._targets: list[Any] = []

    def render(self, meshes: list[Mesh], cameras: Cameras) -> MeshRender:
        if not meshes:
            raise ValueError("there is no mesh to render: give at least one")
        self._resize(cameras.width, cameras.height)
        parts = [self._upload(mesh) for mesh in meshes]
        try:
            views = [self._view(parts, cameras[i : i + 1]) for i in range(len(cameras))]
        finally:
            for part in parts:
                for resource in part:
                    if resource is not None:
                        resource.release()
        colors, geometry = (np.stack(each) for each in zip(*views, strict=True))
        alphas = np.clip(colors[..., 3], 0, 1)
        images = np.clip(colors[..., :3] + 1 - colors[..., 3:], 0, 1)
        return MeshRender(
            torch.from_numpy(images),
            torch.from_numpy(alphas),
            cameras,
            torch.from_numpy(np.ascontiguousarray(geometry[..., 3])),
            normals=torch.from_numpy(np.ascontiguousarray(geometry[..., :3])),
        )

    def close(self) -> None:
        self._gl.release()

    @property
    def is_hardware(self) -> bool:
        """Whether a graphics card draws, not Mesa on the CPU."""
        return not any(word in self._driver for word in ("llvmpipe", "softpipe", "swrast"))

    def _resize(self, width: int, height: int) -> None:
        if (width, height) == self._size:
            return
        for target in self._targets:
            target.release()
        large = (width * self._points, height * self._points)
        limit = int(self._gl.info["GL_MAX_TEXTURE_SIZE"])
        if max(large) > limit:
            raise ValueError(
                f"{large[0]} x {large[1]} points are more than this driver's {limit} a side: "
                "take a smaller size or supersample"
            )
        # Colours are bytes in the end: 16 bits keep them and halve the memory.
        fine = [self._gl.texture(large, 4, dtype="f2"), self._gl.texture(large, 4, dtype="f4")]
        for texture in fine:
            texture.filter = (self._gl.NEAREST, self._gl.NEAREST)
        depth = self._gl.depth_renderbuffer(large)
        self._fine = self._gl.framebuffer(fine, depth)
        coarse = [self._gl.texture((width, height), 4, dtype="f4") for _ in range(2)]
        self._coarse = self._gl.framebuffer(coarse)
        self._fine_textures, self._size = fine, (width, height)
        self._targets = [self._fine, self._coarse, *fine, *coarse, depth]

    def _upload(self, mesh: Mesh) -> tuple[Any, Any, Any]:
        """A vertex array, its buffer, and the texture or None."""
        faces = mesh.faces.cpu()
        corners = mesh.vertices.detach().cpu().float()
        normals = corner_normals(corners, faces, crease_degrees=_CREASE_DEGREES).reshape(-1, 3)
        at = corners[faces]
        flat = torch.linalg.cross(at[:, 1] - at[:, 0], at[:, 2] - at[:, 0])
        # Tiny faces' cross products vanish in float32 arithmetic of the driver.
        flat = torch.nn.functional.normalize(flat.double(), dim=1, eps=1e-30).float()
        index = faces.reshape(-1)
        colors = torch.full((len(index), 3), _PLAIN_GREY)
        if mesh.vertex_colors is not None:
            colors = mesh.vertex_colors.detach().cpu().float()[index]
        has_texture = mesh.texture is not None and mesh.uvs is not None
        uvs = torch.zeros(len(index), 2)
        if mesh.uvs is not None:
            uvs = mesh.uvs.detach().cpu().float()[index]
        rows = torch.cat(
            [at.reshape(-1, 3), normals, flat.repeat_interleave(3, dim=0), colors, uvs], dim=1
        )
        buffer = self._gl.buffer(rows.numpy().astype(np.float32).tobytes())
        names = ("position", "normal", "flat_normal", "color", "uv")
        array = self._gl.vertex_array(self._draw, [(buffer, "3f 3f 3f 3f 2f", *names)])
        if not has_texture or mesh.texture is None:
            return array, buffer, None
        pixels = (mesh.texture.detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
        texture = self._gl.texture(
            (pixels.shape[1], pixels.shape[0]), 3, pixels.tobytes(), alignment=1
        )
        texture.build_mipmaps()
        texture.filter = (self._gl.LINEAR_MIPMAP_LINEAR, self._gl.LINEAR)
        texture.anisotropy = min(8.0, self._gl.max_anisotropy)
        texture.repeat_x = texture.repeat_y = True
        return array, buffer, texture

    def _view(
        self, parts: list[tuple[Any, Any, Any]], camera: Cameras
    ) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 4) mean colours and coverage, and (H, W, 4) normals and depths."""
        world_to_camera = camera.world_to_camera[0].double().cpu().numpy()
        clip = _to_clip(camera.intrinsics[0].double().cpu().numpy(), *self._size)
        self._draw["world_to_clip"].write((clip @ world_to_camera).T.astype("f4").tobytes())
        self._draw["depth_row"].value = tuple(world_to_camera[2])
        self._draw["eye"].value = tuple(camera.positions[0].double().tolist())
        if "light" in self._draw:
            self._draw["light"].value = self._light
        self._fine.use()
        self._gl.enable_only(self._gl.DEPTH_TEST)
        self._fine.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        for array, _, texture in parts:
            self._draw["has_texture"].value = texture is not None
            if texture is not None:
                texture.use(0)
            self._draw["picture"].value = 0
            array.render(self._gl.TRIANGLES)
        self._coarse.use()
        self._gl.enable_only(self._gl.NOTHING)
        for unit, (name, texture) in enumerate(
            zip(("colors", "geometry"), self._fine_textures, strict=True)
        ):
            texture.use(unit)
            self._mean[name].value = unit
        self._mean["points"].value = self._points
        self._everything.render(self._gl.TRIANGLES)
        shape = (self._size[1], self._size[0], 4)
        return tuple(  # type: ignore[return-value]
            np.frombuffer(
                self._coarse.read(components=4, attachment=index, dtype="f4"), np.float32
            ).reshape(shape)
            for index in range(2)
        )


def _to_clip(intrinsics: np.ndarray, width: int, height: int) -> np.ndarray:
    """(4, 4) from OpenCV camera space to clip space.

    Row 0 of the read picture is OpenGL's lowest row, so image y goes up in clip space as it goes
    down in the picture, and nothing has to be flipped afterwards.
    """
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    return np.array(
        [
            [2 * fx / width, 0, 2 * cx / width - 1, 0],
            [0, 2 * fy / height, 2 * cy / height - 1, 0],
            [0, 0, (_FAR + _NEAR) / (_FAR - _NEAR), -2 * _FAR * _NEAR / (_FAR - _NEAR)],
            [0, 0, 1, 0],
        ]
    )


def _context() -> Any:
    try:
        moderngl: Any = importlib.import_module("moderngl")
    except ImportError as error:
        raise MissingDependency(
            f"Drawing by OpenGL needs the package moderngl, which can't be imported ({error}): "
            "pip install moderngl. Without it, the CPU draws."
        ) from error
    try:
        return moderngl.create_context(standalone=True, backend="egl", require=330)
    except Exception as error:  # whatever the driver says
        raise MissingDependency(
            f"Drawing by OpenGL needs EGL, which doesn't start here ({error}): install libEGL "
            "(Debian: libegl1 and libegl-mesa0, or the graphics card's driver)."
        ) from error
