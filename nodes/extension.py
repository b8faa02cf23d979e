"""What ComfyUI asks the pack for."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class Hi3DExtension(ComfyExtension):
    """The pack. Nodes' ids are permanent."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        # The nodes bring in the whole library: only once the host wants them.
        from .comfy_models import register_folder
        from .depth_estimator import DepthEstimator
        from .glb_exporter import GlbExporter
        from .image_to_3d import ImageTo3D
        from .load_views import LoadViews
        from .loader import Loader
        from .mesh_renderer import MeshRenderer
        from .neus_mesher import NeusMesher
        from .orbit_cameras import OrbitCameras
        from .orbit_sampler import OrbitSampler
        from .prepare_image import PrepareImage
        from .splat_interpolator import SplatInterpolator
        from .texture_baker import TextureBaker
        from .video_refiner import VideoRefiner

        register_folder()
        return [
            Loader,
            PrepareImage,
            OrbitSampler,
            DepthEstimator,
            VideoRefiner,
            OrbitCameras,
            SplatInterpolator,
            NeusMesher,
            TextureBaker,
            MeshRenderer,
            GlbExporter,
            ImageTo3D,
            LoadViews,
        ]


async def comfy_entrypoint() -> Hi3DExtension:
    """Called once by the host, which loads what `get_node_list` names."""
    return Hi3DExtension()
