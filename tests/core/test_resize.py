"""Resizing; the bytes are those of OpenCV 4.10 and 5.0, which agree."""

import hashlib

import numpy as np
import pytest

from hi3d_core.resize import Window, resize_linear_8bit


def pattern(height, width, channels):
    y, x, c = np.mgrid[:height, :width, :channels]
    pixels = ((37 * y + 101 * x + 59 * c + 7 * (x * y % 251)) % 256).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


# Shape, (width, height) and the SHA-256 of what cv2.resize gave.
RECORDED = [
    ((150, 130, 3), (128, 148), "17c403f53172"),
    ((64, 64, 3), (128, 128), "0aca5b653f7e"),
    ((128, 128, 3), (64, 64), "5cec52ed9785"),
    ((99, 257, 4), (64, 64), "cfd8959c162b"),
    ((31, 17, 1), (333, 201), "9b106cb57499"),
    ((1, 1, 3), (5, 4), "0645be7c91bd"),
    ((300, 200, 1), (100, 150), "66f02b15a210"),
    ((97, 97, 3), (97, 33), "295bbb2a8c5e"),
    ((700, 500, 3), (512, 717), "a62410d690fa"),
    ((512, 512, 3), (1024, 1024), "df769502e555"),
    ((200, 100, 3), (50, 100), "9ade27d695a5"),
]


@pytest.mark.parametrize(("shape", "size", "digest"), RECORDED)
def test_bytes_are_opencvs(shape, size, digest):
    resized = resize_linear_8bit(pattern(*shape), *size)
    assert hashlib.sha256(resized.tobytes()).hexdigest()[:12] == digest


def test_a_few_bytes_spelled_out():
    pixels = np.array([[0, 255, 30], [200, 100, 7], [90, 90, 255]], np.uint8)
    assert resize_linear_8bit(pixels, 5, 4).tolist() == [
        [0, 102, 255, 120, 30],
        [125, 138, 158, 72, 16],
        [159, 134, 96, 98, 100],
        [90, 90, 90, 189, 255],
    ]
    assert resize_linear_8bit(pixels, 2, 2).tolist() == [[92, 72], [111, 168]]


@pytest.mark.parametrize("size", [(40, 50), (26, 20), (52, 40), (104, 80)])
def test_a_window_is_that_part_of_the_whole(size):
    pixels = pattern(40, 52, 3)
    window = Window(7, 3, 11, 16)
    whole = resize_linear_8bit(pixels, *size)
    assert np.array_equal(resize_linear_8bit(pixels, *size, window), whole[3:19, 7:18])


def test_the_same_size_is_a_copy():
    pixels = pattern(8, 9, 3)
    resized = resize_linear_8bit(pixels, 9, 8)
    assert np.array_equal(resized, pixels)
    resized[:] = 0
    assert pixels.any()


@pytest.mark.parametrize(
    ("pixels", "size", "window", "word"),
    [
        (np.zeros((4, 4), np.float32), (2, 2), None, "uint8"),
        (np.zeros((0, 4), np.uint8), (2, 2), None, "uint8"),
        (np.zeros(4, np.uint8), (2, 2), None, "uint8"),
        (np.zeros((4, 4), np.uint8), (0, 2), None, "at least 1"),
        (np.zeros((4, 4), np.uint8), (2, 2), Window(1, 0, 2, 2), "not inside"),
    ],
)
def test_what_makes_no_sense_is_refused(pixels, size, window, word):
    with pytest.raises(ValueError, match=word):
        resize_linear_8bit(pixels, *size, window)
