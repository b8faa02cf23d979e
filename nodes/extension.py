"""What ComfyUI asks the pack for."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class Hi3DExtension(ComfyExtension):
    """The pack. Nodes are added here, in the order of the pipeline; their ids are permanent."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return []


async def comfy_entrypoint() -> Hi3DExtension:
    """Called once by the host, which loads what `get_node_list` names."""
    return Hi3DExtension()
