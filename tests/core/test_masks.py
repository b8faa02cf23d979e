import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from hi3d_core import mask_network, masks, optional
from hi3d_core.keying import fit_background, key_view
from hi3d_core.masks import check_alphas, cut_out

SIZE = 256
Y, X = np.mgrid[:SIZE, :SIZE].astype(np.float32) + 0.5
RED = np.array([0.8, 0.25, 0.2], np.float32)


def disk(x=128.0, y=128.0, radius=70.0):
    """(H, W) exact enough coverage of a disk: a ramp one pixel wide along its outline."""
    return np.clip(radius - np.hypot(X - x, Y - y) + 0.5, 0, 1).astype(np.float32)


def over(color, alpha, background):
    return (color * alpha[..., None] + background * (1 - alpha[..., None])).astype(np.float32)


def iou(alpha, truth):
    found, there = alpha > 0.5, truth > 0.5
    return float((found & there).sum() / (found | there).sum())


def key(image):
    return key_view(image, fit_background(image))[0]


def vignette():
    return np.stack([0.9 - 0.2 * ((X - 128) ** 2 + (Y - 100) ** 2) / 128**2 / 2] * 3, axis=2)


BACKGROUNDS = {
    "white": np.float32([1, 1, 1]),
    "grey": np.float32([0.5, 0.5, 0.5]),
    "black": np.float32([0, 0, 0]),
    "green": np.float32([0.1, 0.8, 0.2]),
    "gradient": np.stack([0.95 - 0.3 * Y / SIZE] * 3, axis=2),
    "vignette": vignette(),
}


@pytest.mark.parametrize("noise", [0, 0.012])
@pytest.mark.parametrize("name", BACKGROUNDS)
def test_a_disk_is_cut_to_a_fraction_of_a_pixel(name, noise):
    truth = disk()
    image = over(RED, truth, BACKGROUNDS[name])
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    image = np.clip(image, 0, 1).astype(np.float32)
    images, alphas = cut_out(torch.from_numpy(image[None]))
    alpha = alphas[0].numpy()
    assert iou(alpha, truth) > 0.995
    outline = (truth > 0) & (truth < 1)
    assert np.abs(alpha - truth)[outline].mean() < (0.03 if noise == 0 else 0.08)
    assert np.abs(alpha - truth)[~outline].mean() < 5e-4
    # The old background is gone from the mixed pixels: what remains is red over white.
    clean = over(RED, truth, BACKGROUNDS["white"])
    assert np.abs(images[0].numpy() - clean)[outline].mean() < (0.02 if noise == 0 else 0.06)


def test_white_inside_an_object_stays_and_holes_open():
    ring = disk(radius=90) - disk(radius=25)
    image = over(RED, ring, 1.0)
    # A soft highlight reaches pure white; the ring's hole does so with an edge.
    glow = np.exp(-((X - 70) ** 2 + (Y - 128) ** 2) / (2 * 12**2))[..., None]
    image = np.clip(image + glow * 1.2 * ring[..., None], 0, 1).astype(np.float32)
    assert (image[120:136, 62:78] > 0.999).all()
    alpha = key(image)
    assert alpha[120:136, 62:78].min() == 1
    assert iou(alpha, ring) > 0.99


def test_a_white_thing_on_white_with_a_faint_rim():
    # 10 levels darker at the rim, the very white of the background in its middle.
    truth = disk(radius=80)
    shade = 1 - 10 / 255 * np.clip((np.hypot(X - 128, Y - 128) - 50) / 25, 0, 1)
    image = np.round(over(shade[..., None], truth, 1.0) * 255).astype(np.float32) / 255
    assert iou(key(image), truth) > 0.98


def shadowed(truth, depth=0.35):
    spot = (((X - 128) / 75) ** 2 + ((Y - 196) / 22) ** 2 < 1).astype(np.float32)
    shade = 1 - depth * ndimage.gaussian_filter(spot, 7)
    return over(RED, truth, np.repeat(shade[..., None], 3, axis=2))


def test_a_soft_shadow_is_taken_off():
    truth = disk()
    image = shadowed(truth)
    # It is dark enough to be mistaken: a threshold alone takes a third more.
    assert ((1 - image).max(axis=2) > 10 / 255).sum() > 1.3 * (truth > 0.5).sum()
    images, alphas = cut_out(torch.from_numpy(image[None]))
    assert iou(alphas[0].numpy(), truth) > 0.98
    # Nor does it darken the object's rim.
    assert np.abs(images[0].numpy() - over(RED, truth, 1.0)).mean() < 0.005


def test_a_grey_object_with_hard_edges_is_no_shadow():
    truth = np.zeros((SIZE, SIZE), np.float32)
    truth[60:220, 70:190] = 1
    image = over(RED, truth, 1.0)
    image[150:220, 70:190] = 0.75  # as neutral as a shadow, and low
    assert iou(key(image), truth) > 0.995


def test_an_outline_that_fades_in_one_place_does_not_make_a_shadow():
    truth = np.zeros((SIZE, SIZE), np.float32)
    truth[60:220, 70:190] = 1
    image = over(RED, truth, 1.0)
    image[150:220, 70:190] = 0.75
    fade = np.clip((Y - 195) / 24, 0, 1)[150:220, 110:150, None]
    image[150:220, 110:150] = 0.75 + 0.25 * fade
    assert key(image)[160:190, 75:185].min() == 1


def through_h264(frames, path, crf):
    """Frames (V, H, W, 3) in [0, 1] coded and decoded."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.options = {"crf": str(crf)}
        for frame in np.round(frames * 255).astype(np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        coded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(coded).astype(np.float32) / 255


def test_compression_rings_are_not_taken_for_the_object(tmp_path):
    truth = [disk(120 + 6 * step) for step in range(3)]
    images = np.stack([over(np.float32([0.1, 0.1, 0.4]), alpha, 1.0) for alpha in truth])
    coded = through_h264(images, tmp_path / "disk.mp4", 32)
    assert np.abs(coded - images)[0][truth[0] == 0].max() > 15 / 255  # there are rings
    assert min(iou(key(image), alpha) for image, alpha in zip(coded, truth, strict=True)) > 0.99


def test_crumbs_go_and_large_parts_stay():
    truth = np.maximum(disk(90, 128, 50), disk(200, 128, 20))
    image = over(RED, np.maximum(truth, disk(230, 230, 2)), 1.0)
    assert iou(key(image), truth) > 0.995
    assert key(image)[220:240, 220:240].max() == 0


def test_an_object_may_reach_over_the_border():
    truth = disk(128, 240, 80)
    assert iou(key(over(RED, truth, 1.0)), truth) > 0.99


def test_own_masks_win_and_their_background_is_exchanged():
    truth, grey = disk(), np.float32([0.5, 0.5, 0.5])
    other = disk(100, 128, 40)
    image = torch.from_numpy(over(RED, truth, grey)[None])
    images, alphas = cut_out(image, torch.from_numpy(other[None]))
    assert torch.equal(alphas[0], torch.from_numpy(other))
    images, alphas = cut_out(image, torch.from_numpy(truth[None]))
    assert np.abs(images[0].numpy() - over(RED, truth, 1.0)).max() < 0.02


def test_straight_colors_are_put_on_white():
    alpha = disk()
    images, alphas = cut_out(
        torch.from_numpy(np.broadcast_to(RED, (1, SIZE, SIZE, 3)).copy()),
        torch.from_numpy(alpha[None]),
        straight=True,
    )
    assert torch.equal(alphas[0], torch.from_numpy(alpha))
    assert np.abs(images[0].numpy() - over(RED, alpha, 1.0)).max() < 1e-6


def test_inputs_are_left_alone():
    image = torch.from_numpy(over(RED, disk(), 0.5)[None])
    alpha = torch.from_numpy(disk()[None])
    before = image.clone(), alpha.clone()
    cut_out(image, alpha)
    cut_out(image)
    assert torch.equal(image, before[0])
    assert torch.equal(alpha, before[1])


class TestCheckAlphas:
    def alphas(self):
        return torch.from_numpy(disk()).repeat(5, 1, 1)

    def test_good_ones_pass(self):
        check_alphas(self.alphas())
        check_alphas(torch.from_numpy(disk(128, 240, 150)).repeat(5, 1, 1))

    def test_an_object_that_fills_most_of_the_picture_is_not_called_inverted(self):
        near = np.maximum(disk(128, 128, 160), 0)
        near[100:110, 100:110] = 0
        check_alphas(torch.from_numpy(near).repeat(5, 1, 1))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda a: a[2, 3, 4].fill_(float("nan")), "view 2 holds 1 values that are NaN"),
            (lambda a: a[1].mul_(255), r"view 1 lies in \[0, 255\]"),
            (lambda a: a[3].sub_(0.5), r"view 3 lies in \[-0.5"),
            (lambda a: a.zero_(), "all 5 views is empty"),
            (lambda a: a[3:].zero_(), "views 3, 4 is empty"),
            (lambda a: a.fill_(1), "all 5 views is full"),
            (lambda a: a[0].fill_(1), "view 0 is full"),
            (lambda a: a.mul_(-1).add_(1), "look inverted"),
        ],
    )
    def test_bad_ones_are_named(self, change, message):
        alphas = self.alphas()
        change(alphas)
        with pytest.raises(ValueError, match=message):
            check_alphas(alphas)

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match="one mask for each picture"):
            cut_out(torch.zeros(2, 8, 8, 3), torch.zeros(2, 8, 9))


def busy_image():
    """A red ball on a busy background."""
    noise = ndimage.gaussian_filter(np.random.default_rng(1).random((SIZE, SIZE, 3)), (2, 2, 0))
    background = 0.45 + 0.5 * (noise - noise.mean()) / noise.std() * 0.3
    shade = np.clip(1.1 - np.hypot(X - 105, Y - 105) / 160, 0.2, 1)[..., None]
    image = over(np.float32([0.95, 0.2, 0.1]) * shade, disk(), np.clip(background, 0, 1))
    return np.clip(image, 0, 1).astype(np.float32)


class TestBusyBackground:
    def test_the_network_finds_the_object(self):
        pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
        images, alphas = cut_out(torch.from_numpy(busy_image()[None]))
        truth = disk()
        assert iou(alphas[0].numpy(), truth) > 0.95
        # No trace of the old background around it.
        around = images[0].numpy()[(truth == 0) & (alphas[0].numpy() < 0.01)]
        assert around.min() > 0.98

    def test_its_absence_is_said(self, monkeypatch):
        def missing(name):
            raise ImportError(name)

        monkeypatch.setattr(optional.importlib, "import_module", missing)
        mask_network._load.cache_clear()
        with pytest.raises(optional.MissingDependency, match=r"pip install onnxruntime.*own mask"):
            cut_out(torch.from_numpy(busy_image()[None]))

    def test_own_masks_need_no_network(self, monkeypatch):
        monkeypatch.setattr(masks, "network_alphas", None)
        truth = disk()
        images, _ = cut_out(torch.from_numpy(busy_image()[None]), torch.from_numpy(truth[None]))
        outline = (truth > 0.2) & (truth < 0.8)
        # Half-covered pixels are half white, half red: the green of the old background is gone.
        expected = over(np.float32([0.6, 0.12, 0.06]), truth, 1.0)
        assert np.abs(images[0].numpy() - expected)[outline].mean() < 0.12

    def test_a_changed_model_file_is_refused(self, tmp_path):
        pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
        path = tmp_path / "u2netp.onnx"
        shutil.copyfile(mask_network.MODEL_PATH, path)
        with path.open("r+b") as file:
            file.seek(1000)
            file.write(b"\x01\x02\x03\x04")
        with pytest.raises(ValueError, match="SHA-256"):
            list(mask_network.network_alphas(busy_image()[None], path))


def test_a_plain_gradient_is_not_called_busy():
    assert fit_background(over(RED, disk(), vignette())).share > 0.99
    assert fit_background(busy_image()).share < 0.8


def test_compressed_renders_are_cut_out(tmp_path):
    """Rendered objects over white, plain and through H.264, against the renderer's alpha."""
    folder = Path(__file__).parents[3] / "shared" / "eval"
    if not folder.is_dir():
        pytest.skip("needs the evaluation objects (eval/) of the data folder")
    found = []
    for name in ("scopia_cat", "ccby_horse", "gso_glazed_rim_porcelain_ramekin"):
        files = sorted((folder / name / "train").glob("*.png"))[:8:4]
        truth = np.stack([np.asarray(Image.open(file)) for file in files]) / np.float32(255)
        white = over(truth[..., :3], truth[..., 3], 1.0)
        coded = through_h264(white, tmp_path / f"{name}.mp4", 23)
        for image, alpha in zip([*white, *coded], [*truth[..., 3]] * 2, strict=True):
            found.append(iou(key(image), alpha))
    assert np.mean(found) > 0.99
    assert min(found) > 0.98
