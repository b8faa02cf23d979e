"""The networks of both diffusion stages, on diffusers' and transformers' classes; one a file."""
