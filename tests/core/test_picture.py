"""One input picture: every kind of file, every kind of mask, framing to the pixel."""

import hashlib
import logging
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d_core.picture import cover_square, prepare_picture, read_input_mask, read_input_picture

COLORS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
Y, X = np.mgrid[:200, :160].astype(np.float32) + 0.5


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pattern(height, width, channels):
    y, x, c = np.mgrid[:height, :width, :channels]
    return ((37 * y + 101 * x + 59 * c + 7 * (x * y % 251)) % 256).astype(np.uint8)


def disk(x=80.0, y=100.0, radius=50.0):
    """(200, 160) coverage of a disk, its outline a ramp of a pixel."""
    return np.clip(radius - np.hypot(X - x, Y - y) + 0.5, 0, 1).astype(np.float32)


def red_disk(background=(1.0, 1.0, 1.0), **where):
    """Colours (200, 160, 3) of a red disk over a background, and its alpha."""
    alpha = disk(**where)[..., None]
    colors = alpha * np.float32([0.8, 0.2, 0.1]) + (1 - alpha) * np.float32(background)
    return torch.from_numpy(colors), torch.from_numpy(alpha[..., 0])


def png16(values):
    """The bytes of a 16-bit PNG file, which Pillow can't write for colours."""
    height, width, channels = values.shape
    kind = {1: 0, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def read(image, path, **options):
    image.save(path, **options)
    return read_input_picture(path)


# Reading


def test_plain_pictures_are_read_exactly(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        colors, alpha = read(Image.fromarray(COLORS), tmp_path / "x.png")
    assert alpha is None
    assert caplog.text == ""
    assert torch.equal(colors, torch.from_numpy(COLORS).float() / 255)


def test_alpha_is_kept_straight(tmp_path, rng):
    pixels = rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    colors, alpha = read(Image.fromarray(pixels), tmp_path / "x.png")
    assert torch.equal(torch.cat([colors, alpha[..., None]], 2), torch.from_numpy(pixels) / 255)


def test_an_opaque_alpha_channel_says_nothing(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        _, alpha = read(Image.fromarray(COLORS).convert("RGBA"), tmp_path / "x.png")
    assert alpha is None and "opaque" in caplog.text


KINDS = {
    "grey": ("L", "x.png", "grey"),
    "grey with alpha": ("LA", "x.png", "grey"),
    "black and white": ("1", "x.png", "grey"),
    "palette": ("P", "x.png", "palette"),
    "CMYK": ("CMYK", "x.tif", "CMYK"),
    "YCbCr": ("YCbCr", "x.tif", "YCbCr"),
    "floats": ("F", "x.tif", "grey"),
    "16-bit grey": ("I;16", "x.png", "grey"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_are_converted_and_said(kind, tmp_path, caplog):
    mode, name, word = KINDS[kind]
    grey = COLORS.astype(np.float32).mean(axis=2) / 255
    if mode == "F":
        image, expected = Image.fromarray(grey), grey
    elif mode == "I;16":
        image, expected = Image.fromarray((grey * 65535).astype(np.uint16)), grey
    else:
        image = Image.fromarray(COLORS).convert("L" if mode == "LA" else mode).convert(mode)
        expected = np.asarray(image.convert("RGB"), np.float32) / 255
    with caplog.at_level(logging.INFO):
        colors, alpha = read(image, tmp_path / name)
    assert word in caplog.text and "x." in caplog.text
    assert colors.shape == (40, 60, 3) and colors.dtype == torch.float32 and alpha is None
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, 2)
    assert np.abs(colors.numpy() - expected).max() < 2 / 255


def test_sixteen_bits_of_colour(tmp_path, caplog, rng):
    values = rng.integers(0, 65536, (20, 20, 3))
    (tmp_path / "x.png").write_bytes(png16(values))
    with caplog.at_level(logging.INFO):
        colors, _ = read_input_picture(tmp_path / "x.png")
    assert np.abs(colors.numpy() - values / 65535).max() < 1 / 255
    assert "16 bits" in caplog.text


def test_the_first_of_several_frames(tmp_path, caplog):
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue", "lime")]
    with caplog.at_level(logging.INFO):
        colors, _ = read(frames[0], tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert colors[0, 0].tolist() == [1, 0, 0]
    assert "first of its 3" in caplog.text


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(orientation, tmp_path, caplog):
    upright = COLORS
    # What a camera stores, so that a viewer who follows the tag sees `upright`.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    with caplog.at_level(logging.INFO):
        colors, _ = read(
            Image.fromarray(np.ascontiguousarray(stored)), tmp_path / "x.png", exif=exif
        )
    assert torch.equal(colors, torch.from_numpy(upright).float() / 255)
    assert ("EXIF" in caplog.text) == (orientation != 1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16", "1"])
def test_large_pictures_are_averaged_down(mode, tmp_path, caplog, rng):
    # 5000 pixels wide: by 2. The average of equal pairs is the pair.
    half = rng.integers(0, 256, (40, 2500), dtype=np.uint8)
    grey = half.repeat(2, 0).repeat(2, 1)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "1":
        half = (half > 127).astype(np.uint8) * 255
        image = Image.fromarray(half.repeat(2, 0).repeat(2, 1)).convert("1")
    else:
        image = Image.fromarray(grey)
        image.putalpha(128) if mode == "RGBA" else None
        image = image.convert(mode)
    with caplog.at_level(logging.INFO):
        colors, alpha = read(image, tmp_path / "x.png")
    assert colors.shape == (40, 2500, 3)
    assert "averaged down" in caplog.text
    assert np.abs(colors[..., 1].numpy() - half / 255).max() < (3 if mode == "RGBA" else 1) / 255
    assert (alpha is not None) == (mode == "RGBA")


def test_the_rest_of_a_strip_is_kept(tmp_path):
    rows = np.arange(4321, dtype=np.uint16)
    picture = np.repeat(rows[:, None], 24, 1) * 15
    colors, _ = read(Image.fromarray(picture), tmp_path / "x.png")
    assert len(colors) == 2161
    truth = (np.append(rows, rows[-1]).reshape(-1, 2).mean(axis=1)) * 15 / 65535
    assert np.abs(colors[:, 0, 0].numpy() - truth).max() < 1e-4


def test_large_photos_are_decoded_small(tmp_path, monkeypatch):
    loaded = []
    reduce = Image.Image.crop
    monkeypatch.setattr(
        Image.Image, "crop", lambda image, box: loaded.append(image.size) or reduce(image, box)
    )
    colors, _ = read(Image.new("RGB", (12000, 64), "red"), tmp_path / "x.jpg")
    assert colors.shape[1] == 3000
    assert set(loaded) == {(6000, 32)}  # half by the decoder, the rest by averaging


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "x.png"
    header = struct.pack(">IIBBBBB", 16384, 16384, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 100) + b"IDAT"
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"x\.png is too large .*scale it down"):
        read_input_picture(path)


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (400, 15)])
def test_tiny_pictures_are_refused(size, tmp_path):
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels, expected at least"):
        read(Image.new("RGB", size), tmp_path / "x.png")


def test_files_that_are_no_pictures(tmp_path, rng):
    path = tmp_path / "x.png"
    for data in (b"", b"no picture at all", rng.bytes(500), b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.png"):
            read_input_picture(path)
    with pytest.raises(ValueError, match="is a folder"):
        read_input_picture(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        read_input_picture(tmp_path / "y.png")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of broken TIFF tags
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.webp", "x.gif", "x.dds"])
def test_truncated_and_damaged_files_are_named(name, tmp_path, rng):
    path = tmp_path / name
    Image.fromarray(COLORS).save(path)
    data = path.read_bytes()
    broken = [data[:length] for length in range(0, len(data) - 1, max(1, len(data) // 25))]
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(0, min(len(data), 300), 4):
            damaged[position] = rng.integers(256)
        broken.append(bytes(damaged))
    refused = 0
    for each in broken:
        path.write_bytes(each)
        try:  # some damage does not show, and some decoders fill up what is missing
            colors, _ = read_input_picture(path)
        except ValueError as error:
            assert name in str(error)
            refused += 1
        else:
            assert torch.isfinite(colors).all()
    assert refused > 10


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 200.0])
def test_values_out_of_range_are_refused(value, tmp_path):
    values = np.full((20, 20), 0.5, np.float32)
    values[3, 4] = value
    with pytest.raises(ValueError, match="expected 0 to 1"):
        read(Image.fromarray(values), tmp_path / "x.tif")


def test_masks_from_brightness_or_alpha(tmp_path):
    grey = Image.fromarray(COLORS[..., 0])
    grey.save(tmp_path / "grey.png")
    red = Image.new("RGB", grey.size, "red")
    red.putalpha(grey)
    red.save(tmp_path / "alpha.png")
    truth = torch.from_numpy(COLORS[..., 0]).float() / 255
    for name in ("grey.png", "alpha.png"):
        assert torch.allclose(read_input_mask(tmp_path / name), truth)


# Preparing


def levels(values):
    scaled = values * 255
    assert (scaled - scaled.round()).abs().max() < 1e-4
    return scaled.round().int()


def test_a_square_of_the_right_size_is_only_pasted_on_white(rng):
    pixels = torch.from_numpy(rng.integers(0, 256, (64, 64, 4), dtype=np.uint8))
    pixels[:8, :, 3] = 0
    picture, alpha = prepare_picture(pixels[..., :3] / 255, pixels[..., 3] / 255, 64)
    exact = pixels[..., :3] * (pixels[..., 3:] / 255) + 255 - pixels[..., 3:].float()
    assert (levels(picture) - exact).abs().max() <= 0.5 + 1e-3
    assert torch.equal(levels(alpha), pixels[..., 3].int())
    assert picture[:8].min() == 1


def test_the_shorter_side_fits_and_the_middle_is_kept():
    colors, alpha = red_disk()
    picture, framed = prepare_picture(colors, alpha, 320)
    assert picture.shape == (320, 320, 3) and framed.shape == (320, 320)
    # 160 wide to 320: twice; of 400 rows the middle 320.
    center = (framed * (torch.arange(320)[:, None] + 0.5)).sum() / framed.sum()
    assert float(center) == pytest.approx(160, abs=0.05)
    assert float(framed.sum()) == pytest.approx(np.pi * 100**2, rel=2e-3)


@pytest.mark.parametrize(
    ("height", "width", "size", "digest"),
    [
        (170, 130, 128, "4fd9d41d6ac6"),  # 167.4 rows become 168
        (187, 187, 192, "e436ce73dbb3"),  # 187 * (192 / 187) is a little more: 193
        (100, 333, 192, "dd3d7c63a1e5"),
        (641, 480, 320, "b7990b1aa4a2"),  # an odd row is cut off above
    ],
)
def test_framing_is_the_official_one_to_the_bit(height, width, size, digest):
    # Recorded with cv2.resize to ceil(side * max(S / h, S / w)) and a crop from round(rest / 2).
    square = cover_square(pattern(height, width, 3), size)
    assert hashlib.sha256(square.tobytes()).hexdigest()[:12] == digest


@pytest.mark.parametrize("background", [(1, 1, 1), (0.1, 0.7, 0.2), (0.05, 0.05, 0.05)])
def test_without_a_mask_a_plain_background_is_keyed(background):
    colors, _ = red_disk(background)
    picture, alpha = prepare_picture(colors, None, 128)
    whole, whole_alpha = prepare_picture(*red_disk(), 128)
    assert picture[0].min() == 1 and alpha[0].max() == 0
    assert float((alpha - whole_alpha).abs().mean()) < 2e-3
    assert float((picture - whole).abs().mean()) < 4e-3


def test_colours_mixed_with_a_background_are_freed_from_it():
    colors, alpha = red_disk((0.0, 0.0, 1.0))
    freed, _ = prepare_picture(colors, alpha, 128, straight=False)
    kept, _ = prepare_picture(colors, alpha, 128)
    white, _ = prepare_picture(*red_disk(), 128, straight=False)
    assert float((freed - white).abs().max()) < 0.03 < float((kept - white).abs().max())


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.85, 1.0])
@pytest.mark.parametrize("where", [{}, {"x": 30, "y": 150, "radius": 20}])
def test_the_object_fills_the_share_it_should(ratio, where):
    straight = torch.tensor([0.8, 0.2, 0.1]).expand(200, 160, 3)
    _, alpha = red_disk(**where)
    picture, framed = prepare_picture(straight, alpha, 256, ratio)
    rows, columns = (np.flatnonzero((framed > 0.5).any(dim=axis)) for axis in (1, 0))
    for found in (rows, columns):
        assert len(found) == pytest.approx(ratio * 256, abs=2.1)
        assert (found[0] + found[-1]) / 2 == pytest.approx(127.5, abs=1.1)
    levels(picture), levels(framed)
    # The object's own colour over white, nothing of what lay around it.
    expected = framed[..., None] * straight[0, 0] + 1 - framed[..., None]
    assert float((picture - expected).abs().max()) < 0.02


def test_a_long_object_is_measured_by_its_longer_side():
    colors = torch.rand(100, 300, 3, generator=torch.Generator().manual_seed(0))
    alpha = torch.zeros(100, 300)
    alpha[40:60, 10:210] = 1
    _, framed = prepare_picture(colors, alpha, 256, 0.75)
    assert int((framed > 0.5).any(dim=0).sum()) == 192
    assert int((framed > 0.5).any(dim=1).sum()) == 19


def test_what_the_square_leaves_out_is_said(caplog):
    colors, alpha = red_disk(y=30)
    with caplog.at_level(logging.INFO):
        prepare_picture(colors, alpha, 64)
        assert "leaves out" in caplog.text
        caplog.clear()
        prepare_picture(*red_disk(), 64)
        assert caplog.text == ""
    with pytest.raises(ValueError, match="foreground_ratio"):
        prepare_picture(torch.rand(64, 400, 3), torch.eye(64, 400).roll(2, 1), 64)


def test_a_smaller_mask_is_resized_and_said(caplog):
    colors, alpha = red_disk()
    with caplog.at_level(logging.INFO):
        _, framed = prepare_picture(colors, alpha[::2, ::2], 128)
    assert "80 x 100" in caplog.text
    assert float((framed - prepare_picture(colors, alpha, 128)[1]).abs().mean()) < 0.01


def test_large_pictures_without_a_mask_are_cut_out_at_a_smaller_size(caplog):
    colors = torch.ones(300, 3000, 3)
    colors[50:250, 1400:1600] = torch.tensor([0.2, 0.3, 0.9])
    with caplog.at_level(logging.INFO):
        _, alpha = prepare_picture(colors, None, 128)
    assert "2048" in caplog.text
    assert float((alpha > 0.5).float().mean()) == pytest.approx(4 / 9, rel=0.03)


DISK, ALPHA = red_disk()


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ((DISK, torch.zeros(200, 160)), "empty"),
        ((DISK, torch.ones(200, 160)), "full"),
        ((DISK, 1 - ALPHA), "inverted"),
        ((DISK, ALPHA * float("nan")), "NaN"),
        ((DISK, ALPHA * 255), "divide"),
        ((DISK, ALPHA[:, :100]), "shape of the picture"),
        ((DISK, ALPHA[None]), "expected"),
        ((DISK, ALPHA[:0]), "expected"),
        ((DISK * float("nan"), ALPHA), "NaN"),
        ((DISK * float("inf"), None), "NaN or infinite"),
        ((DISK * 255, ALPHA), "0 to 1"),
        ((DISK - 1, ALPHA), "0 to 1"),
        ((DISK[..., :2], ALPHA), "expected"),
        ((DISK[None], ALPHA), "expected"),
        ((DISK.byte(), ALPHA), "expected floats"),
        ((DISK[:1, :1], None), "at least 16 x 16"),
        ((DISK[:0], None), "at least 16 x 16"),
        ((torch.full((64, 64, 3), 0.5), None), "no object"),
        ((DISK, ALPHA, 100), "multiple of 64"),
        ((DISK, ALPHA, 0), "multiple of 64"),
        ((DISK, ALPHA, -64), "multiple of 64"),
        ((DISK, ALPHA, 2112), "multiple of 64"),
        ((DISK, ALPHA, 64, 0.0), "foreground_ratio"),
        ((DISK, ALPHA, 64, 1.1), "foreground_ratio"),
        ((DISK, ALPHA, 64, float("nan")), "foreground_ratio"),
    ],
)
def test_bad_inputs_are_refused(inputs, word):
    with pytest.raises(ValueError, match=word):
        prepare_picture(*inputs)


def test_inputs_are_left_as_they_are():
    colors, alpha = red_disk()
    before = colors.clone(), alpha.clone()
    for ratio in (None, 0.5):
        for mask in (alpha, None):
            prepare_picture(colors, mask, 64, ratio)
    assert torch.equal(colors, before[0]) and torch.equal(alpha, before[1])


def test_smooth_averages_where_the_official_resize_skips_pixels():
    """Stripes of two pixels: what looks at two of four may see one colour alone."""
    colors = torch.ones(256, 256, 3)
    for column in (0, 3):
        colors[64:192, 64 + column : 192 : 4] = 0
    alpha = torch.zeros(256, 256)
    alpha[64:192, 64:192] = 1
    rough, _ = prepare_picture(colors, alpha, 64)
    smooth, framed = prepare_picture(colors, alpha, 64, smooth=True)
    inside = np.s_[20:44, 20:44]
    assert float((smooth[inside] - 0.5).abs().max()) < 0.03
    assert float(smooth[:12].min()) == 1 and float(framed[inside].min()) == 1
    assert float(rough[inside].min()) == 1
    # Where nothing shrinks, both are the same.
    whole = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    full = torch.ones(64, 64)
    full[0] = 0
    pair = [prepare_picture(whole, full, 64, smooth=each)[0] for each in (True, False)]
    assert torch.equal(*pair)
