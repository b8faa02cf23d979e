"""Hi3D Loader: which weights the diffusion nodes use."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..hi3d_core.weights.find import WeightsKind
from .comfy_models import DTYPES, Choices, Hi3DModel, ModelSocket, checkpoint, model_choices


class Loader(io.ComfyNode):
    """Names the checkpoints; each is read when a node first needs it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def choice(name: str, kind: WeightsKind, what: str, instead: str = "") -> io.Combo.Input:
            files = model_choices(kind)
            return io.Combo.Input(
                name,
                options=files,
                default=files[0],
                tooltip=f"{what}, from ComfyUI's folder models/hi3d. auto: the first of the usual "
                f"names that is there{instead}.",
            )

        small = "; where neither stage is there, the small model that comes with the pack"

        return io.Schema(
            node_id="Hi3DLoader",
            display_name="Hi3D Loader",
            category="Hi3D",
            description="Chooses the models. Nothing is read until a node needs it, and nothing is "
            "ever downloaded: a small model comes with the pack, and a missing file is named, with "
            "its size and who offers it.",
            inputs=[
                choice(
                    "orbit_checkpoint",
                    "orbit",
                    "First stage (first_stage.pt, 5.4 GB in half precision)",
                    small,
                ),
                choice(
                    "refiner_checkpoint", "refiner", "Second stage (second_stage.pt, 5.0 GB)", small
                ),
                choice("depth_model", "depth", "Depth for the refiner (dpt_hybrid_384.pt, 0.5 GB)"),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="auto",
                    tooltip="Number format of the networks. auto: fp16 on CUDA, else fp32. bf16 "
                    "takes as little memory as fp16, with a little less precision.",
                ),
            ],
            outputs=[ModelSocket.Output(display_name="model")],
        )

    @classmethod
    def fingerprint_inputs(
        cls, orbit_checkpoint: str, refiner_checkpoint: str, depth_model: str, dtype: str
    ) -> str:
        chosen = _chosen(orbit_checkpoint, refiner_checkpoint, depth_model)
        return f"{dtype} " + " ".join(_stamp(kind, chosen) for kind in chosen)

    @classmethod
    def execute(
        cls, orbit_checkpoint: str, refiner_checkpoint: str, depth_model: str, dtype: str
    ) -> io.NodeOutput:
        chosen = _chosen(orbit_checkpoint, refiner_checkpoint, depth_model)
        return io.NodeOutput(Hi3DModel(chosen, DTYPES[dtype]))


def _chosen(orbit: str, refiner: str, depth: str) -> Choices:
    return {"orbit": orbit, "refiner": refiner, "depth": depth}


def _stamp(kind: WeightsKind, choices: Choices) -> str:
    """What changes when the file does."""
    try:
        path = checkpoint(kind, choices)
    except ValueError:
        return f"{kind}: missing"
    files = [path] if path.is_file() else sorted(Path(path).rglob("*"))
    return f"{path}:" + ",".join(
        f"{each.stat().st_size}@{each.stat().st_mtime_ns}" for each in files if each.is_file()
    )
