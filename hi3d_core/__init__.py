"""Hi3D's core library: posed views in, a textured mesh and a Gaussian splat out.

It knows nothing of ComfyUI. Start reading at `pipeline.py`, then `datatypes.py`.
"""

__version__ = "0.1.0"
