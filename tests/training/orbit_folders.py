"""Small datasets in the official layout, written to a temporary folder."""

import numpy as np
from PIL import Image


def orbit_frames(seed, frames=96, side=40):
    """(frames, side, side, 4) uint8: a disc of its own colour in each frame, soft at its rim."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    pixels = np.zeros((frames, side, side, 4), np.uint8)
    for index in range(frames):
        across, down, radius = generator.uniform((-0.15, -0.15, 0.2), (0.15, 0.15, 0.3))
        distance = np.hypot(x - across, y - down)
        pixels[index, ..., :3] = generator.integers(0, 255, 3)
        pixels[index, ..., 3] = np.clip((radius - distance) * side * 100, 0, 255)
    return pixels


def write_orbit(folder, pixels):
    """Write frames as 000.png and so on."""
    folder.mkdir(parents=True)
    for index, frame in enumerate(pixels):
        Image.fromarray(frame, "RGBA").save(folder / f"{index:03d}.png")
    return folder
