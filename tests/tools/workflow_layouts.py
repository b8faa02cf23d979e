"""Where the nodes of each workflow stand: groups from left to right, each with its columns.

A column lists node ids from top to bottom; with `rows`, those at the same place in several columns
stand side by side.
"""

from __future__ import annotations

from typing import Any

# Least width and height in pixels, for nodes that show something.
SIZES = {
    "LoadImage": [330, 390],
    "LoadVideo": [330, 390],
    "PreviewImage": [330, 330],
    "SaveAnimatedWEBP": [330, 500],
    "Preview3D": [520, 620],
    "PreviewAny": [420, 190],
    "CLIPTextEncode": [400, 160],
    # These show their work while they run.
    "Hi3DOrbitVideoSampler": [330, 560],
    "Hi3DVideoRefiner": [330, 620],
    "Hi3DGaussianSplatInterpolator": [330, 520],
    "Hi3DNeusMesher": [360, 660],
    "Hi3DImageTo3D": [360, 640],
}
NOTE_WIDTH = 460

# What runs without Hi3D's weights, on a CPU.
WITHOUT_MODELS = ("orbit_video_to_mesh", "posed_photos_to_mesh", "retexture_mesh")

# The texts that follow a workflow's own in its note; "models" and "cameras" for those not here.
NOTE_PARTS = {
    "orbit_video_to_mesh": ["cameras"],
    "posed_photos_to_mesh": ["posed_cameras"],
    "retexture_mesh": ["cameras"],
}


def _group(title: str, *columns: list[int], rows: bool = False) -> dict[str, Any]:
    return {"title": title, "columns": [list(each) for each in columns], "rows": rows}


LAYOUTS = {
    "image_to_3d": [
        _group("1. Picture and models", [1, 3, 4], [2]),
        _group("2. Orbit: 16 views at 512", [5, 6]),
        _group("3. Depth", [7, 8]),
        _group("4. Refine: 16 views at 1024", [9, 10]),
        _group("5. Splat, and views that it draws", [11, 12], [13]),
        _group("6. Mesh", [14], [16, 15], [17]),
    ],
    "image_to_3d_one_node": [
        _group("1. Picture and models", [1, 2]),
        _group("2. Everything in one", [3]),
        _group("3. Results", [5], [4]),
    ],
    "text_to_3d": [
        _group("1. Paint a picture from text", [1, 4], [2, 3], [5, 6]),
        _group("2. Object on white", [7, 8]),
        _group("3. Orbit, then refined orbit", [9, 10], [11], [12], [13]),
        _group("4. Mesh", [14], [15], [16]),
    ],
    "orbit_video_to_mesh": [
        _group("1. Video and cameras", [1, 4], [2, 3]),
        _group("2. Mesh", [5], [7, 6, 9]),
        _group("3. Look at it", [8], [10]),
    ],
    "posed_photos_to_mesh": [
        _group("1. Photos and cameras", [1]),
        _group("2. Mesh", [2], [4, 3]),
        _group("3. Look at it", [5]),
    ],
    "retexture_mesh": [
        _group("1. Views and cameras", [1, 4], [2, 3]),
        _group("2. A mesh: put yours in its place", [5]),
        _group("3. New texture", [6, 9], [7, 10]),
        _group("4. Look at it", [8], [11], [12]),
    ],
    "three_seeds": [
        _group("1. Picture and models", [1, 3, 4], [2]),
        _group("2. Three orbits", [11, 21, 31], [12, 22, 32], rows=True),
        _group("3. Three meshes", [13, 23, 33], [14, 24, 34], [15, 25, 35], rows=True),
    ],
}
