"""Hi3D GLB Exporter: a mesh into ComfyUI's output folder."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy_run import new_output, workflow_texts, working
from .comfy_types import FileSocket, MeshSocket, to_file, to_mesh
from .inputs import check_choice

_SUFFIXES = {"GLB": ".glb", "OBJ": ".obj", "PLY": ".ply", "STL": ".stl"}


class GlbExporter(io.ComfyNode):
    """Writes a mesh as GLB, OBJ, PLY or STL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        outputs = [
            io.String.Output(
                display_name="path",
                tooltip="Within the output folder, with forward slashes: for Preview 3D.",
            )
        ]
        if FileSocket is not None:
            outputs.append(FileSocket.Output(display_name="model_3d"))
        return io.Schema(
            node_id="Hi3DGlbExporter",
            display_name="Hi3D GLB Exporter",
            category="Hi3D",
            description="Writes a mesh into the output folder. Y is up, the front looks to +Z, "
            "as in ComfyUI's viewer.",
            inputs=[
                MeshSocket.Input("mesh", tooltip="One mesh, from any node."),
                io.String.Input(
                    "filename_prefix",
                    default="hi3d/mesh",
                    tooltip="Folder and name within the output folder; a number is added.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(_SUFFIXES),
                    default="GLB",
                    tooltip="GLB: one file with its texture. OBJ: with .mtl and .png beside it. "
                    "PLY: colours at the vertices. STL: the shape alone.",
                ),
                io.Boolean.Input(
                    "embed_workflow",
                    default=True,
                    tooltip="Keep this workflow inside a GLB, so that dragging the file into "
                    "ComfyUI brings it back. The other formats have no place for it.",
                ),
            ],
            outputs=outputs,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, mesh: object, filename_prefix: str, format: str, embed_workflow: bool = True
    ) -> io.NodeOutput:
        from ..hi3d_core.export import write_glb, write_mesh

        check_choice("format", format, list(_SUFFIXES))
        suffix = _SUFFIXES[format]
        with working():
            made = to_mesh(mesh)
            path, name = new_output(filename_prefix, suffix)
            if suffix == ".glb":
                write_glb(made, path, extras=workflow_texts(cls.hidden) if embed_workflow else None)
            else:
                write_mesh(made, path)
        results = [name] if FileSocket is None else [name, to_file(str(path), suffix)]
        return io.NodeOutput(*results, ui={"text": (name,)})
