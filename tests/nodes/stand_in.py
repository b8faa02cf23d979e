"""Stand-ins for what the pack takes from ComfyUI, for tests that need no host."""

import types
from pathlib import Path

import torch


class _Socket:
    def __init__(self, id=None, **settings):
        self.id = id
        self.__dict__.update(settings)


def _socket_type(io_type: str):
    return type(
        io_type,
        (),
        {
            "io_type": io_type,
            "Input": type("Input", (_Socket,), {"io_type": io_type}),
            "Output": type("Output", (_Socket,), {"io_type": io_type}),
        },
    )


class Schema:
    def __init__(self, **fields):
        self.__dict__.update(fields)


class NodeOutput:
    def __init__(self, *args, ui=None):
        self.args, self.ui = args, ui


class HostMesh:
    def __init__(self, vertices, faces, uvs=None, vertex_colors=None, texture=None):
        self.vertices, self.faces, self.uvs = vertices, faces, uvs
        self.vertex_colors, self.texture = vertex_colors, texture
        self.vertex_counts = self.face_counts = None


class File3D:
    def __init__(self, source, file_format=""):
        self.source, self.format = source, file_format


class Interrupted(Exception):
    """What the host raises when the user cancels."""


def modules(output: str, given: str, *, old: bool = False) -> dict[str, types.ModuleType]:
    """Modules by name, with folders for output and input files.

    old: as hosts were before they had splats, files and textured meshes.
    """
    names = {
        **{"Image": "IMAGE", "Mask": "MASK", "Mesh": "MESH", "Load3DCamera": "LOAD3D_CAMERA"},
        **{"Int": "INT", "Float": "FLOAT", "Combo": "COMBO", "String": "STRING"},
        **{"Boolean": "BOOLEAN"},
        **({} if old else {"Splat": "SPLAT", "File3DAny": "FILE_3D"}),
    }
    sockets = {name: _socket_type(io_type) for name, io_type in names.items()}
    multi = type("MULTI", (), {"Input": type("Input", (_Socket,), {"io_type": "MULTI"})})
    io = types.SimpleNamespace(
        MultiType=multi,
        Custom=_socket_type,
        ComfyNode=type("ComfyNode", (), {"hidden": types.SimpleNamespace()}),
        Schema=Schema,
        NodeOutput=NodeOutput,
        Hidden=types.SimpleNamespace(prompt="PROMPT", extra_pnginfo="EXTRA_PNGINFO"),
        **sockets,
    )
    made = {
        name: types.ModuleType(name)
        for name in (
            *("comfy_api", "comfy_api.latest", "comfy", "comfy.model_management", "comfy.utils"),
            *("folder_paths", "comfy_extras", "comfy_extras.nodes_hunyuan3d", "comfy.cli_args"),
        )
    }
    latest = made["comfy_api.latest"]
    latest.io, latest.ComfyExtension = io, object
    if not old:
        latest.Types = types.SimpleNamespace(MESH=HostMesh, File3D=File3D)
    made["comfy_api"].latest = latest

    class OldMesh:
        def __init__(self, vertices, faces):
            self.vertices, self.faces = vertices, faces

    made["comfy_extras.nodes_hunyuan3d"].MESH = OldMesh

    host = made["comfy.model_management"]
    host.cancelled, host.emptied = False, 0

    def check():
        if host.cancelled:
            raise Interrupted

    def empty():
        host.emptied += 1

    host.throw_exception_if_processing_interrupted, host.soft_empty_cache = check, empty
    host.get_torch_device = lambda: torch.device("cpu")
    host.freed = []
    host.free_memory = lambda needed, device: host.freed.append((needed, device))
    made["comfy"].model_management = host
    told: list[tuple[int, int]] = []

    class ProgressBar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            told.append((value, total))

    made["comfy.utils"].ProgressBar, made["comfy.utils"].told = ProgressBar, told
    made["comfy"].utils = made["comfy.utils"]
    made["comfy.cli_args"].args = types.SimpleNamespace(disable_metadata=False)
    made["comfy"].cli_args = made["comfy.cli_args"]

    def save_path(prefix, root, *_):
        folder = Path(root) / Path(prefix).parent
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder), Path(prefix).name, 1, str(Path(prefix).parent), prefix

    paths = made["folder_paths"]
    paths.get_output_directory, paths.get_input_directory = lambda: output, lambda: given
    paths.get_save_image_path = save_path
    models = Path(given).parent / "models"
    paths.models_dir, paths.folder_names_and_paths = str(models), {}

    def add(name, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        paths.folder_names_and_paths[name] = ([folder], set())

    def full_path(name, file):
        path = Path(paths.folder_names_and_paths[name][0][0]) / file
        return str(path) if path.exists() else None

    paths.add_model_folder_path, paths.get_full_path = add, full_path
    paths.get_folder_paths = lambda name: list(paths.folder_names_and_paths[name][0])
    paths.get_filename_list = lambda name: [
        each.name
        for each in Path(paths.folder_names_and_paths[name][0][0]).iterdir()
        if each.suffix in paths.folder_names_and_paths[name][1]
    ]
    return made
