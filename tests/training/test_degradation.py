"""The degradation: each step against the recorded run, then what is drawn and how often."""

import io
import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import least_squares

from training.blur_kernels import (
    FIRST_KERNELS,
    bell,
    delta,
    draw_final_kernel,
    draw_kernel,
    low_pass,
    padded,
)
from training.degradation import DegradationConfig, RoundConfig, degrade, draw_steps, finished
from training.degradation_steps import (
    Blur,
    EraseParts,
    GaussianNoise,
    Jpeg,
    PoissonNoise,
    Resize,
    ToBytes,
)
from training.jpeg import compress

from ..core.golden.goldens import golden, need, relative_error

FLOATS = 1e-4
RECORD = "train/data_degradation.safetensors"
SIZE = 64


def recorded(name):
    return golden(RECORD, f"deg.{name}")


def clean_video():
    """Frames 0, 1 and 9 in [-1, 1]; recorded as (channels, frames, height, width)."""
    return (recorded("video") / 127.5 - 1).transpose(0, 1).contiguous()


def sequence():
    return json.loads(need("train/data_degradation.json").read_text())["degradation_sequence"]


def before(index):
    """What the recorded step got: its own record, or what the step before it gave."""
    steps = sequence()
    name = f"step{index:02d}_{steps[index]['op']}.in"
    if f"deg.{name}" in json.loads(need("train/data_degradation.json").read_text())["tensors"]:
        return recorded(name)
    return after(index - 1)


def after(index):
    return recorded(f"step{index:02d}_{sequence()[index]['op']}.out")


def step_of(index):
    """Our step for a recorded one that has no randomness."""
    told = sequence()[index]
    if told["op"] == "filter2D":
        kernels = {0: "kernel1s", 4: "kernel2s", 8: "sinc_kernels"}[index]
        return Blur(recorded(kernels))
    if told["op"] == "interpolate":
        size = told["size"] and tuple(told["size"])
        return Resize(told["mode"], factor=told["scale_factor"], size=size)
    return Jpeg(torch.tensor(told["quality_frames_1_9"]))


EXACT = [0, 1, 3, 4, 5, 7, 8, 9, 10]
GAUSSIAN, POISSON = 2, 6


@pytest.mark.parametrize("index", EXACT)
def test_golden_step(index):
    assert relative_error(step_of(index)(before(index)), after(index)) <= 1e-5


def test_golden_rounding_to_bytes():
    """Between the last JPEG and the last resizing; the recorded values lie on the bytes' grid."""
    assert relative_error(ToBytes()(after(9)), before(10)) <= 1e-6


def test_golden_run():
    """All of it one after the other, with the noise as it fell in the recorded run."""
    frames = (clean_video()[1:] + 1) / 2
    assert relative_error(frames, before(0)) <= 1e-6
    for index in range(len(sequence())):
        if index in EXACT:
            if index == 10:
                frames = ToBytes()(frames)
                # A value in the middle between two bytes may go either way.
                assert (frames - before(index)).abs().max() <= 1.001 / 255
                frames = before(index)
            frames = step_of(index)(frames)
        else:
            frames = (frames + (after(index) - before(index))).clamp(0, 1)
        assert relative_error(frames, after(index)) <= FLOATS, index


def test_golden_final_frames():
    """White where alpha is 0, the clean frame 0, bicubic overshoot left as it is."""
    clean = clean_video()
    background = torch.cat([torch.zeros(1, SIZE, SIZE, dtype=torch.bool), recorded("masks_1_9")])
    last = after(10)
    ours = finished(torch.cat([last[:1], last]), clean, background)
    assert relative_error(ours, recorded("final")) <= 1e-6


def test_golden_gaussian_noise():
    """Grey frames have one pattern in all channels, coloured ones three that don't go together."""
    told = sequence()[GAUSSIAN]
    noise, free = after(GAUSSIAN) - before(GAUSSIAN), after(GAUSSIAN)
    free = ((free > 1e-3) & (free < 1 - 1e-3)).all(dim=1)
    sigmas = [255 * noise[index, :, free[index]].std() for index in range(2)]
    low, high = json.loads(told["sigma_range"])
    assert all(low <= float(sigma) <= high for sigma in sigmas)
    is_grey = torch.tensor(
        [
            bool((noise[index, 0] - noise[index, 2])[free[index]].abs().max() < 1e-6)
            for index in (0, 1)
        ]
    )
    assert is_grey.tolist() == [False, True]
    ours = GaussianNoise(torch.stack(sigmas), is_grey, seed=3)(before(GAUSSIAN))
    ours_noise = ours - before(GAUSSIAN)
    for index in range(2):
        mine = ours_noise[index, :, free[index]]
        mine = mine[:, (mine != 0).all(dim=0)]
        theirs = noise[index, :, free[index]]
        correlation = torch.corrcoef(mine)[0, 1] - torch.corrcoef(theirs)[0, 1]
        assert abs(float(correlation)) < 0.1


def test_golden_poisson_noise():
    """The recorded noise is scale (count / levels - value), with a whole count at every pixel."""
    given, got = before(POISSON), after(POISSON)
    for index, is_grey in ((0, True), (1, False)):
        frame, noise = given[index].double(), (got - given)[index].double()
        free = ((got[index] > 1e-3) & (got[index] < 1 - 1e-3)).all(dim=0)
        if is_grey:
            weights = torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64)
            frame, noise = torch.einsum("c,chw->hw", weights, frame)[None], noise[:1]
        values = (frame * 255).round().clamp(0, 255) / 255
        levels = 2 ** math.ceil(math.log2(torch.unique(values).numel()))
        noise, values = noise[:, free].flatten(), values[:, free].flatten()
        scales = torch.logspace(math.log10(0.05), math.log10(2.5), 40000, dtype=torch.float64)
        scales = torch.cat([torch.linspace(0.05, 2.5, 4, dtype=torch.float64), scales])
        worst = torch.stack(
            [
                ((counts - counts.round()).abs()).quantile(0.99)
                for counts in ((noise / scale + values) * levels for scale in scales)
            ]
        )
        # Unlike a wrong formula, the right one has a scale that makes every count whole.
        assert float(worst.min()) < 0.05
        assert float(worst.median()) > 0.4


@pytest.mark.parametrize("name", ["kernel1s", "kernel2s", "sinc_kernels"])
@pytest.mark.parametrize("frame", [0, 1])
def test_golden_kernel_is_of_our_family(name, frame):
    """Some choice of parameters makes the recorded kernel, to 1e-4 of its peak."""
    kernel = recorded(name)[frame]
    side = int((kernel.abs().sum(dim=0) > 0).sum())
    assert side % 2 and 7 <= side <= 21
    assert min(fits(kernel, side)) <= FLOATS


def fits(kernel, side):
    """How closely each kind of kernel of this side can come, in parts of the peak."""
    target = kernel.double().numpy()
    peak = abs(target).max()

    def miss(made):
        return (padded(made).double().numpy() - target).ravel() / peak

    cutoffs = np.linspace(math.pi / 5, math.pi, 60)
    best = min(cutoffs, key=lambda cutoff: np.abs(miss(low_pass(side, cutoff))).max())
    found = least_squares(lambda p: miss(low_pass(side, p[0])), [best], diff_step=1e-4)
    yield np.abs(found.fun).max()
    for profile in ("gaussian", "generalized", "plateau"):
        for sigmas, rotation in (((2.0, 1.0), 0.5), ((2.0, 1.0), -0.5), ((0.7, 0.4), 0.5)):

            def error(p, profile=profile):
                exponent = 1 if profile == "gaussian" else p[3]
                return miss(bell(side, (p[0], p[1]), p[2], exponent, profile))

            found = least_squares(
                error,
                [*sigmas, rotation, 1.0],
                diff_step=1e-3,
                bounds=([0.15, 0.15, -4, 0.3], [4, 4, 4, 5]),
                max_nfev=60,
            )
            yield np.abs(found.fun).max()


def picture(side=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


def test_jpeg_is_close_to_a_real_codec():
    """Pillow's files at whole qualities differ by rounding and by the table's transposition."""
    image = picture()[:, :1].expand(-1, 3, -1, -1)
    file = io.BytesIO()
    pixels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=60)
    real = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)[None] / 255
    ours = compress(image, torch.tensor([60.0]))
    assert (ours - real).abs().mean() < 0.01
    assert (ours - image).abs().mean() > 1e-3


def test_jpeg_of_any_size_and_its_refusals():
    image = picture(37)
    assert compress(image, torch.tensor([80.0])).shape == image.shape
    with pytest.raises(ValueError, match="quality"):
        compress(image, torch.tensor([80.0, 80.0]))


def test_kernels_sum_to_one_and_come_as_often_as_told():
    generator = torch.Generator().manual_seed(0)
    ringing = 0
    for _ in range(1000):
        kernel = draw_kernel(generator, FIRST_KERNELS)
        assert kernel.shape == (21, 21)
        assert abs(float(kernel.sum()) - 1) < 1e-5
        ringing += bool(kernel.min() < -1e-6)
    assert 70 < ringing < 130  # a tenth
    deltas = sum(torch.equal(draw_final_kernel(generator), delta()) for _ in range(1000))
    assert 160 < deltas < 240  # a fifth


def test_kernels_stand_as_their_parameters_say():
    kernel = bell(21, (2.0, 2.0)).double()
    line = torch.arange(21.0).double() - 10
    assert abs(float((kernel.sum(0) * line**2).sum()) - 4) < 0.01
    turned = bell(21, (3.0, 0.5), rotation=math.pi / 2)
    assert torch.allclose(turned, bell(21, (0.5, 3.0)), atol=1e-6)


def test_each_choice_is_drawn_as_often_as_told():
    generator = torch.Generator().manual_seed(1)
    runs = [draw_steps(generator, 2, (SIZE, SIZE)) for _ in range(400)]
    counts = Counter()
    for steps in runs:
        names = [type(step).__name__ for step in steps]
        noises = [step for step in steps if isinstance(step, GaussianNoise | PoissonNoise)]
        resizes = [step for step in steps if isinstance(step, Resize)]
        assert names[:2] == ["Blur", "Resize"]
        assert names[-2:] == ["ToBytes", "Resize"]
        assert resizes[-1].size == (SIZE, SIZE)
        assert resizes[-2].size == (SIZE // 4, SIZE // 4)
        assert names.count("Jpeg") == 2
        counts["second blur"] += names.count("Blur") == 3
        counts["first shrinks"] += resizes[0].factor < 1
        counts["first grows"] += resizes[0].factor > 1
        counts["second shrinks"] += resizes[1].size[0] < SIZE // 4
        counts["first gaussian"] += isinstance(noises[0], GaussianNoise)
        counts["grey"] += bool(noises[0].grey[0])
        counts["jpeg last"] += names[-3] == "Jpeg"
        for step in steps:
            if isinstance(step, Jpeg):
                assert 30 <= float(step.quality.min()) <= float(step.quality.max()) <= 95
    expected = {
        "second blur": 0.8,
        "first shrinks": 0.7,
        "first grows": 0.2,
        "second shrinks": 0.4,
        "first gaussian": 0.5,
        "grey": 0.4,
        "jpeg last": 0.5,
    }
    for name, share in expected.items():
        assert abs(counts[name] / 400 - share) < 0.08, name


def video(frames=3):
    clean = torch.cat([picture(SIZE, seed) for seed in range(frames)]) * 2 - 1
    background = torch.zeros(frames, SIZE, SIZE, dtype=torch.bool)
    background[:, :10] = True
    return clean, background


def test_degraded_video():
    clean, background = video()
    torch.manual_seed(0)
    ours = degrade(clean, background, torch.Generator().manual_seed(4))
    torch.manual_seed(1)  # the global generator plays no part
    assert torch.equal(ours, degrade(clean, background, torch.Generator().manual_seed(4)))
    assert not torch.equal(ours, degrade(clean, background, torch.Generator().manual_seed(5)))
    assert ours.shape == clean.shape
    assert torch.equal(ours[0], clean[0])
    assert (ours[1:, :, :10] == 1).all()
    assert (ours[1:, :, 10:] - clean[1:, :, 10:]).abs().mean() > 0.02


def test_overshoot_of_the_last_resizing_stays():
    clean, background = video()
    bright = torch.full_like(clean, 1.1)
    assert torch.allclose(finished(bright, clean, background)[1:, :, 10:], torch.tensor(1.2))


def test_degrades_whatever_is_drawn():
    clean, background = video(2)
    generator = torch.Generator().manual_seed(9)
    for _ in range(25):
        assert torch.isfinite(degrade(clean, background, generator)).all()


def test_random_masking_bites_into_shapes():
    quiet = RoundConfig(blur=0, enlarge=0, shrink=0, sigma=(0, 0), gaussian=1, quality=(100, 100))
    config = DegradationConfig(quiet, quiet, final_sinc=0, erase=1, erased=(0.1, 0.1))
    steps = draw_steps(torch.Generator().manual_seed(0), 3, (SIZE, SIZE), config)
    assert isinstance(steps[0], EraseParts)
    black = torch.zeros(3, 3, SIZE, SIZE)
    erased = steps[0](black)
    assert torch.equal(erased[0], black[0])
    share = float((erased[1:] > 0.5).float().mean())
    assert 0.02 < share < 0.25
    default = draw_steps(torch.Generator().manual_seed(0), 3, (SIZE, SIZE))
    assert not any(isinstance(step, EraseParts) for step in default)


def test_masks_of_another_size_are_refused():
    clean, background = video()
    with pytest.raises(ValueError, match="background"):
        degrade(clean, background[:, ::2], torch.Generator())
