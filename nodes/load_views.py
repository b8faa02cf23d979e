"""Hi3D Load Views: posed photos, or an orbit's frames, from the input folder."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from .comfy_run import input_file, told
from .comfy_types import CamerasSocket


class LoadViews(io.ComfyNode):
    """Reads pictures and their cameras in one, in the same order."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hi3DLoadViews",
            display_name="Hi3D Load Views",
            category="Hi3D",
            description="Reads photos with a transforms.json, an orbit video or a folder of an "
            "orbit's frames: pictures on white, masks and cameras that belong together.",
            inputs=[
                io.String.Input(
                    "path",
                    default="posed_views",
                    tooltip="A folder, video or transforms.json (NeRF's convention) in the input "
                    "folder, or its full path. A folder with a transforms.json is read in its "
                    "order, other folders by file name.",
                ),
                io.Float.Input(
                    "elevation",
                    default=0.0,
                    min=-85.0,
                    max=85.0,
                    step=0.5,
                    tooltip="Of an orbit, in degrees; above 0 the camera looks down. A "
                    "transforms.json has its own cameras, and this is not used.",
                ),
                io.Int.Input(
                    "max_views",
                    default=64,
                    min=4,
                    max=256,
                    tooltip="Of more pictures so many are taken, evenly spread. Time and memory "
                    "grow with them.",
                ),
                io.Int.Input(
                    "max_size",
                    default=1024,
                    min=64,
                    max=4096,
                    step=64,
                    tooltip="Larger pictures are scaled down to this many pixels on their longer "
                    "side.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The object on white."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="From the pictures' alpha, or a plain background keyed out.",
                ),
                CamerasSocket.Output(display_name="cameras"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, path: str, elevation: float, max_views: int, max_size: int) -> str:
        try:
            found = input_file(path)
        except ValueError:
            return "missing"
        folder = found.parent if found.suffix.lower() == ".json" else found
        files = [folder] if folder.is_file() else sorted(folder.rglob("*"))
        stamps = (f"{each.name}:{_stamp(each)}" for each in files if each.is_file())
        return f"{elevation} {max_views} {max_size} " + ",".join(stamps)

    @classmethod
    def execute(cls, path: str, elevation: float, max_views: int, max_size: int) -> io.NodeOutput:
        from ..hi3d_core.read import read_views
        from ..hi3d_core.read.posed import find_transforms

        on_step = told("views")
        source = input_file(path)
        posed = find_transforms(source) is not None
        views = read_views(
            source,
            elevation_degrees=None if posed else elevation,
            max_views=max_views,
            max_size=max_size,
        )
        on_step(1, 1)
        return io.NodeOutput(views.images, views.alphas, views.cameras)


def _stamp(file: Path) -> str:
    status = file.stat()
    return f"{status.st_size}@{status.st_mtime_ns}"
