"""The one picture that an orbit starts from: any file in, a square picture on white out.

By default it is framed as the official code does it, bit for bit: pasted on white in 8 bits,
resized linearly until it covers the square, cut at the centre. Letters: H and W the picture's
height and width, S the square's side.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .export.checks import to_bytes
from .masks import check_alphas, cut_out
from .read.pictures import opening, picture_to_array
from .resize import Window, resize_array, resize_linear_8bit

_log = logging.getLogger(__name__)

_LEAST_SIDE = 16  # pixels: less shows nothing
_MOST_SIDE = 4096  # of a picture in memory: larger files are averaged down while they are read
_KEYING_SIDE = 2048  # where the object must be found first, which takes 200 bytes a pixel
_STRIP = 64  # rows of the result that are averaged down at once
_VISIBLE = 8 / 255  # alpha below this does not count as object when it is measured
_EMPTY_SHARE = 1e-4  # of the picture: what covers less is no object
_CUT_SHARE = 0.005  # of the object may lie outside the square before the log says so


def read_input_picture(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """Read one picture of an object, upright.

    Any kind that Pillow reads: grey, palette, CMYK, 8 or 16 bits, floating point in [0, 1]. Of
    several frames the first is taken. Sides above 4096 pixels are averaged down by a whole number.
    The log tells of every such conversion.

    Returns the colours (H, W, 3) float32 in [0, 1], straight, and the alpha (H, W) or None where
    the file has none or it is opaque everywhere.
    Raises ValueError naming a file that is missing, damaged, no picture, too small or too large.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give one picture of the object")
    pixels = None
    with opening(path) as image:
        width, height = image.size
        if min(width, height) >= _LEAST_SIDE:
            pixels = _decode(image, path)
    if pixels is None:
        raise ValueError(
            f"the picture {path} is {width} x {height} pixels, expected at least "
            f"{_LEAST_SIDE} x {_LEAST_SIDE}: give a larger one, best 512 or more"
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # also refuses NaN
        raise ValueError(
            f"the picture {path} holds values from {low:g} to {high:g}, expected 0 to 1: export it "
            "with 8 or 16 bits a channel"
        )
    colors = torch.from_numpy(np.ascontiguousarray(pixels[..., :3]))
    if pixels.shape[2] == 3:
        return colors, None
    alpha = torch.from_numpy(np.ascontiguousarray(pixels[..., 3]))
    if float(alpha.min()) >= 0.99:
        _log.info("%s: its alpha channel is opaque everywhere and says nothing", path)
        return colors, None
    return colors, alpha


def read_input_mask(path: str | Path) -> Tensor:
    """Read a mask file, white on the object: (H, W) float32 in [0, 1].

    Its alpha channel counts if it has one that says something, else its brightness.
    Raises ValueError as `read_input_picture`.
    """
    colors, alpha = read_input_picture(path)
    return colors.mean(dim=2) if alpha is None else alpha


def prepare_picture(
    colors: Tensor,
    alpha: Tensor | None = None,
    size: int = 512,
    foreground_ratio: float | None = None,
    *,
    straight: bool = True,
    smooth: bool = False,
) -> tuple[Tensor, Tensor]:
    """Put the object on white and frame it as a square.

    colors: (H, W, 3) float in [0, 1].
    alpha: (H, W) in [0, 1], 1 on the object, or None: then a plain background is keyed out, and if
        it is not plain the mask network looks for the object. A mask of another size but the same
        shape is resized.
    size: S in pixels, a multiple of 64 from 64 to 2048.
    foreground_ratio: None keeps the picture's own framing, as the official code: it covers the
        square, and what is beyond is cut off. Else the object is centred, and the longer side of
        its box is this share of S, 0.1 to 1.
    straight: the colours are the object's own, as in a file with alpha; False: they are mixed with
        a background that the alpha was found on. Of no meaning without alpha.
    smooth: average where the picture shrinks. The official code does not and skips pixels, which
        its networks know; of no meaning with a foreground_ratio, where it is always smooth.

    Returns the picture (S, S, 3) and the alpha (S, S), float32 in multiples of 1/255, on the CPU.
    Raises ValueError for bad shapes, values or settings and for a mask that is empty, full or
    inverted; MissingDependency if the mask network is needed and its package is missing.
    """
    if size % 64 or not 64 <= size <= 2048:
        raise ValueError(f"size is {size} pixels, expected a multiple of 64 from 64 to 2048")
    if foreground_ratio is not None and not 0.1 <= foreground_ratio <= 1:  # also refuses NaN
        raise ValueError(f"foreground_ratio is {foreground_ratio}, expected 0.1 to 1")
    colors = _checked_colors(colors)
    if alpha is not None:
        alpha = _fitted_mask(alpha.detach().float().cpu(), *colors.shape[:2])
    over_white, coverage = _on_white(colors, alpha, straight)
    if foreground_ratio is None:
        _warn_of_cut(coverage, size)
        cover = _cover_smoothly if smooth else cover_square
        picture, framed = cover(over_white, size), cover(coverage, size)
    else:
        picture, framed = _centered(over_white, coverage, size, foreground_ratio)
    if not framed.any():
        raise ValueError(
            "the object is outside the square at the picture's centre: centre it, or set "
            "foreground_ratio (0.85, for example)"
        )
    return _to_floats(picture), _to_floats(framed)


def paste_on_white(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Straight colours over white in 8 bits, with Pillow's rounding as in the official code.

    colors: uint8 (H, W, 3). alpha: uint8 (H, W). Returns uint8 (H, W, 3).
    """
    white = Image.new("RGB", (colors.shape[1], colors.shape[0]), "WHITE")
    white.paste(Image.fromarray(colors), mask=Image.fromarray(alpha))
    return np.asarray(white)


def cover_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize until the shorter side fits and cut at the centre, bit for bit as the official code.

    pixels: uint8 (H, W) or (H, W, C). Returns uint8 (S, S) or (S, S, C).
    """
    width, height, window = _covering(pixels.shape[1], pixels.shape[0], size)
    return resize_linear_8bit(pixels, width, height, window)


def _cover_smoothly(pixels: np.ndarray, size: int) -> np.ndarray:
    """As `cover_square`, antialiased: as pictures of training data are resized."""
    width, height, window = _covering(pixels.shape[1], pixels.shape[0], size)
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    right, bottom = window.left + window.width, window.top + window.height
    return np.array(resized.crop((window.left, window.top, right, bottom)))


def _covering(width: int, height: int, size: int) -> tuple[int, int, Window]:
    rate = max(size * 1.0 / height, size * 1.0 / width)
    # Where w * (S / w) rounds to more than S, the result is a pixel wider, as officially.
    new_width, new_height = math.ceil(width * rate), math.ceil(height * rate)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    return new_width, new_height, Window(left, top, size, size)


def _decode(image: Image.Image, path: Path) -> np.ndarray:
    for what in _conversions(image):
        _log.info("%s: %s", path, what)
    return picture_to_array(_reduced(_upright(_drafted(image)), path))


def _conversions(image: Image.Image) -> list[str]:
    """What happens to a file that is not plain 8-bit RGB."""
    told = []
    count = getattr(image, "n_frames", 1)
    if count > 1:
        told.append(f"the first of its {count} pictures is taken")
    if image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;"):
        told.append("it is grey")
    elif image.mode not in ("RGB", "RGBA"):
        name = "palette" if image.mode in ("P", "PA") else image.mode
        told.append(f"its {name} colours are converted to RGB")
    if image.mode.startswith("RGB") and any(
        ";16" in str(tile[3]) for tile in getattr(image, "tile", ())
    ):
        told.append("of its 16 bits a channel the upper 8 are read")
    if _orientation(image) != 1:
        told.append(f"it is turned upright (EXIF orientation {_orientation(image)})")
    return told


def _orientation(image: Image.Image) -> int:
    orientation = image.getexif().get(0x0112, 1)
    return orientation if orientation in range(2, 9) else 1


def _upright(image: Image.Image) -> Image.Image:
    # Pillow would copy the picture even where there is nothing to turn.
    return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)


def _drafted(image: Image.Image) -> Image.Image:
    """Let a JPEG decoder skip detail that is averaged away anyway."""
    longest = max(image.size)
    if longest > _MOST_SIDE:
        least = [math.ceil(side * _MOST_SIDE / longest) for side in image.size]
        image.draft(None, (least[0], least[1]))
    return image


def _reduced(image: Image.Image, path: Path) -> Image.Image:
    """Average a large picture down by a whole number, in strips to hold one copy only."""
    factor = math.ceil(max(image.size) / _MOST_SIDE)
    if factor == 1:
        return image
    rows = _STRIP * factor
    boxes = [
        (0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)
    ]
    strips = [_averageable(image.crop(box)).reduce(factor) for box in boxes]
    width, height = strips[0].width, sum(strip.height for strip in strips)
    _log.info(
        "%s: %d x %d pixels are averaged down to %d x %d",
        path,
        image.width,
        image.height,
        width,
        height,
    )
    result = Image.new(strips[0].mode, (width, height))
    for index, strip in enumerate(strips):
        result.paste(strip, (0, index * _STRIP))
    return result


def _averageable(strip: Image.Image) -> Image.Image:
    if strip.mode.startswith("I;"):
        return strip.convert("I")
    if strip.mode in ("1", "P", "PA") or "transparency" in strip.info:
        return strip.convert("RGBA")
    return strip


def _checked_colors(colors: Tensor) -> Tensor:
    if colors.ndim != 3 or colors.shape[-1] != 3 or not colors.is_floating_point():
        raise ValueError(
            f"colors is {colors.dtype} {tuple(colors.shape)}, expected floats (H, W, 3)"
        )
    if min(colors.shape[:2]) < _LEAST_SIDE:
        raise ValueError(
            f"the picture is {colors.shape[1]} x {colors.shape[0]} pixels, expected at least "
            f"{_LEAST_SIDE} x {_LEAST_SIDE}: give a larger one, best 512 or more"
        )
    colors = colors.detach().float().cpu()
    bad = int((~torch.isfinite(colors)).sum())
    if bad:
        raise ValueError(f"the picture holds {bad} values that are NaN or infinite: export it anew")
    low, high = float(colors.min()), float(colors.max())
    if low < -1e-4 or high > 1 + 1e-4:
        raise ValueError(
            f"the picture holds values from {low:g} to {high:g}, expected 0 to 1: divide them by "
            "their largest possible value"
        )
    return colors.clamp(0, 1)


def _fitted_mask(alpha: Tensor, height: int, width: int) -> Tensor:
    """The mask (height, width), known to hold an object and something else."""
    if alpha.ndim != 2 or 0 in alpha.shape:
        raise ValueError(f"the mask is {tuple(alpha.shape)}, expected (H, W)")
    bad = int((~torch.isfinite(alpha)).sum())
    if bad:
        raise ValueError(f"the mask holds {bad} values that are NaN or infinite: export it anew")
    if alpha.shape != (height, width):
        # Within the pixel that rounding a scaled size may cost.
        if abs(alpha.shape[1] * height - alpha.shape[0] * width) > max(width, height):
            raise ValueError(
                f"the mask is {alpha.shape[1]} x {alpha.shape[0]} pixels, the picture is {width} x "
                f"{height}: the mask must have the shape of the picture"
            )
        _log.info(
            "the mask is resized from %d x %d pixels to the picture's %d x %d",
            alpha.shape[1],
            alpha.shape[0],
            width,
            height,
        )
        alpha = torch.from_numpy(resize_array(alpha.numpy(), width, height).copy())
    covered = float((alpha > 0.5).float().mean())
    if covered < _EMPTY_SHARE:
        raise ValueError(
            "the mask is empty (black or transparent throughout): it must be white or opaque on "
            "the object"
        )
    if covered > 1 - _EMPTY_SHARE:
        raise ValueError(
            "the mask is full (white or opaque throughout): it must be black or transparent around "
            "the object; without a mask the object is looked for"
        )
    check_alphas(alpha[None])
    return alpha.clamp(0, 1)


def _on_white(
    colors: Tensor, alpha: Tensor | None, straight: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The picture over white, uint8 (H, W, 3), and its alpha, uint8 (H, W)."""
    if alpha is not None and straight:
        coverage = to_bytes(alpha)
        return paste_on_white(to_bytes(colors), coverage), coverage
    longest = max(colors.shape[:2])
    if longest > _KEYING_SIDE:
        width, height = (
            max(_LEAST_SIDE, round(side * _KEYING_SIDE / longest))
            for side in (colors.shape[1], colors.shape[0])
        )
        _log.info("the picture is scaled down to %d x %d to cut the object out", width, height)
        colors = _resized(colors, width, height)
        alpha = None if alpha is None else _resized(alpha, width, height)
    images, alphas = cut_out(colors[None], None if alpha is None else alpha[None])
    return to_bytes(images[0]), to_bytes(alphas[0])


def _resized(values: Tensor, width: int, height: int) -> Tensor:
    resized = resize_array(values.numpy(), width, height)
    return torch.from_numpy(resized.copy()).clamp(0, 1)


def _warn_of_cut(coverage: np.ndarray, size: int) -> None:
    """Say so where the square leaves out a part of the object."""
    height, width = coverage.shape
    new_width, new_height, window = _covering(width, height, size)
    left, right = (x * width // new_width for x in (window.left, window.left + size))
    top, bottom = (y * height // new_height for y in (window.top, window.top + size))
    total = float(coverage.sum(dtype=np.float64))
    outside = 1 - float(coverage[top:bottom, left:right].sum(dtype=np.float64)) / total
    if outside > _CUT_SHARE:
        _log.warning(
            "the square at the picture's centre leaves out %.0f %% of the object: make the picture "
            "square, or set foreground_ratio",
            100 * outside,
        )


def _centered(
    over_white: np.ndarray, coverage: np.ndarray, size: int, ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """The object's box in the middle of a white square, its longer side `ratio` of the square's."""
    visible = coverage >= 255 * _VISIBLE
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    alpha = coverage[box].astype(np.float32) / 255
    # Premultiplied, so that nothing bleeds in from around the object.
    object_colors = over_white[box].astype(np.float32) / 255 - (1 - alpha[..., None])
    scale = ratio * size / max(alpha.shape)
    height, width = (max(1, round(side * scale)) for side in alpha.shape)
    layers = np.dstack([object_colors, alpha])
    resized = np.stack(
        [_smoothly_resized(layers[..., layer], width, height) for layer in range(4)], axis=2
    )
    # The filter swings over in colours and alpha alike: their ratio is free of it.
    straight = (resized[..., :3] / resized[..., 3:].clip(1e-3)).clip(0, 1)
    alpha = resized[..., 3].clip(0, 1)
    middle = np.s_[(size - height) // 2 :, (size - width) // 2 :]
    picture, framed = np.full((size, size, 3), 255, np.uint8), np.zeros((size, size), np.uint8)
    mixed = straight * alpha[..., None] + (1 - alpha[..., None])
    picture[middle][:height, :width] = np.rint(mixed * 255)
    framed[middle][:height, :width] = np.rint(alpha * 255)
    return picture, framed


def _smoothly_resized(layer: np.ndarray, width: int, height: int) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(layer))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def _to_floats(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).float() / 255
