"""GLB: a mesh with its texture in one file (glTF 2.0, Khronos Group)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic_file import check_writable, replacing
from ..datatypes import Mesh
from ..normals import vertex_normals
from ..srgb import srgb_to_linear
from .checks import GENERATOR, encode_picture, faces_to_write

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _REPEAT = 9729, 9987, 10497


def write_glb(
    mesh: Mesh,
    path: str | Path,
    *,
    jpeg_quality: int | None = None,
    extras: dict[str, str] | None = None,
) -> None:
    """Write a mesh as GLB, in our world frame, which is glTF's: Y up, front towards +Z.

    Vertices keep their order; normals are smooth, shared by all vertices at one position. The
    texture is the base colour of a rough material that is not metallic, stored as PNG, or as
    JPEG with `jpeg_quality` (1 to 95). Without a texture, vertex colours are stored; glTF wants
    those in linear light, so they are converted from sRGB. Viewers multiply the two, therefore
    vertex colours are left out beside a texture, and texture coordinates without one.

    extras: kept under `asset.extras`, where ComfyUI looks for the workflow that made a file.

    Raises ValueError for a mesh without faces or a place that can't be written.
    """
    check_writable(path)
    if jpeg_quality is not None and not 1 <= jpeg_quality <= 95:
        raise ValueError(f"jpeg_quality is {jpeg_quality}, expected 1 to 95")
    document = _Document()
    faces = faces_to_write(mesh, path).numpy()
    positions = mesh.vertices.detach().cpu().float().numpy()
    normals = vertex_normals(mesh.vertices, mesh.faces).cpu().numpy()
    # 65535 is no index: it restarts a strip.
    small = len(positions) <= 65535
    indices = faces.astype(np.uint16 if small else np.uint32).reshape(-1)
    attributes = {
        "POSITION": document.add_vectors(positions, with_bounds=True),
        "NORMAL": document.add_vectors(normals),
    }
    material: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    if mesh.texture is not None and mesh.uvs is not None:
        attributes["TEXCOORD_0"] = document.add_vectors(mesh.uvs.detach().cpu().float().numpy())
        document.add_texture(
            encode_picture(mesh.texture, jpeg_quality),
            "image/png" if jpeg_quality is None else "image/jpeg",
        )
        material["baseColorTexture"] = {"index": 0}
    elif mesh.vertex_colors is not None:
        colors = srgb_to_linear(mesh.vertex_colors.detach().cpu().float().clamp(0, 1))
        attributes["COLOR_0"] = document.add_vectors(colors.numpy())
    primitive = {
        "attributes": attributes,
        "indices": document.add_indices(indices, _UINT16 if small else _UINT32),
        "material": 0,
    }
    document.content.update(
        asset={"version": "2.0", "generator": GENERATOR},
        scene=0,
        scenes=[{"nodes": [0]}],
        nodes=[{"mesh": 0, "name": "Hi3D"}],
        meshes=[{"primitives": [primitive]}],
        materials=[{"pbrMetallicRoughness": material, "doubleSided": False}],
    )
    if extras:
        document.content["asset"]["extras"] = extras
    with replacing(path) as temporary:
        temporary.write_bytes(document.to_bytes())


class _Document:
    """A glTF document that grows: its JSON content and the binary chunk that it points into."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {"accessors": [], "bufferViews": []}
        self._binary = bytearray()

    def add_vectors(self, rows: np.ndarray, *, with_bounds: bool = False) -> int:
        """Store (N, 2) or (N, 3) floats for each vertex; returns the accessor's index."""
        accessor = {"componentType": _FLOAT, "count": len(rows), "type": f"VEC{rows.shape[1]}"}
        if with_bounds:
            # float() keeps the exact float32 value, as the validator compares bit by bit.
            accessor["min"] = [float(value) for value in rows.min(axis=0)]
            accessor["max"] = [float(value) for value in rows.max(axis=0)]
        return self._add_accessor(accessor, rows.astype("<f4").tobytes(), _VERTEX_BUFFER)

    def add_indices(self, indices: np.ndarray, component_type: int) -> int:
        accessor = {"componentType": component_type, "count": len(indices), "type": "SCALAR"}
        little_endian = indices.astype(indices.dtype.newbyteorder("<"))
        return self._add_accessor(accessor, little_endian.tobytes(), _INDEX_BUFFER)

    def add_texture(self, encoded: bytes, mime_type: str) -> None:
        view = self._add_buffer_view(encoded, None)
        self.content["images"] = [{"bufferView": view, "mimeType": mime_type}]
        self.content["samplers"] = [
            {
                "magFilter": _LINEAR,
                "minFilter": _LINEAR_MIPMAP_LINEAR,
                "wrapS": _REPEAT,
                "wrapT": _REPEAT,
            }
        ]
        self.content["textures"] = [{"source": 0, "sampler": 0}]

    def _add_accessor(self, accessor: dict[str, Any], data: bytes, target: int) -> int:
        accessor["bufferView"] = self._add_buffer_view(data, target)
        self.content["accessors"].append(accessor)
        return len(self.content["accessors"]) - 1

    def _add_buffer_view(self, data: bytes, target: int | None) -> int:
        view = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self.content["bufferViews"].append(view)
        self._binary += data + b"\0" * (-len(data) % 4)
        return len(self.content["bufferViews"]) - 1

    def to_bytes(self) -> bytes:
        """The whole file: header, JSON chunk, binary chunk."""
        self.content["buffers"] = [{"byteLength": len(self._binary)}]
        text = json.dumps(self.content, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + len(self._binary)
        return b"".join(
            [
                struct.pack("<4sII", b"glTF", 2, length),
                struct.pack("<I4s", len(text), b"JSON"),
                text,
                struct.pack("<I4s", len(self._binary), b"BIN\0"),
                bytes(self._binary),
            ]
        )
