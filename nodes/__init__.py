"""The pack's entry for ComfyUI: one extension, its nodes listed in pipeline order."""

from .extension import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
