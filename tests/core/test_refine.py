import dataclasses
import math

import pytest
import torch

from hi3d_core.refine import RefineConfig, depth_channels, enlarge, mix_in, refine_orbit

from .test_orbit import Cancelled, live_bytes
from .tiny_models import tiny_model

SIZE = 64


@pytest.fixture(scope="module")
def model():
    return tiny_model("refiner")


@pytest.fixture(scope="module")
def frames():
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(16, 3, 8, 8, generator=generator)
    grown = torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear")
    return grown.permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope="module")
def depths():
    return torch.rand(16, 24, 24, generator=torch.Generator().manual_seed(6))


def make(model, frames, depths, elevation=0.0, seed=0, on_step=None, picture=None, **settings):
    return refine_orbit(
        model,
        frames,
        frames[0] if picture is None else picture,
        elevation,
        RefineConfig(**{"size": SIZE, "steps": 3, **settings}),
        generator=torch.Generator().manual_seed(seed),
        depths=depths,
        on_step=on_step,
    )


def test_frames_are_larger_eight_bit_pictures(model, frames, depths):
    refined = make(model, frames, depths)
    assert refined.shape == (16, SIZE, SIZE, 3)
    assert torch.equal((refined * 255).round() / 255, refined)
    assert torch.equal(refined, make(model, frames, depths))


@pytest.mark.parametrize(
    "change",
    [
        {"elevation": 5.0},
        {"seed": 1},
        {"strength": 0.5},
        {"sharpness": 4.0},
        {"cond_aug": 0.1},
        {"guidance": (1.0, 3.0)},
    ],
)
def test_every_input_counts(model, frames, depths, change):
    assert not torch.equal(make(model, frames, depths), make(model, frames, depths, **change))


def test_depth_and_every_frame_count(model, frames, depths):
    whole = make(model, frames, depths)
    assert not torch.equal(whole, make(model, frames, depths.flip(2)))
    other = frames.clone()
    other[7] = 1 - other[7]
    assert not torch.equal(whole, make(model, other, depths))


def test_the_scale_of_a_depth_map_does_not_count(model, frames, depths):
    scaled = depths * torch.linspace(1, 5, 16)[:, None, None] + 3
    difference = make(model, frames, depths) - make(model, frames, scaled)
    assert float(difference.abs().max()) <= 1 / 255 + 1e-6


def test_the_first_frame_is_locked_to_the_picture_or_not(frames):
    picture = torch.zeros(48, 48, 3)
    locked = enlarge(frames, picture, RefineConfig(size=SIZE))
    free = enlarge(frames, picture, RefineConfig(size=SIZE, lock_first_frame=False))
    assert torch.equal(locked[0], torch.full((3, SIZE, SIZE), -1.0))
    assert torch.equal(locked[1:], free[1:])
    assert not torch.equal(locked[0], free[0])


def test_full_mixing_starts_from_the_coarse_latents():
    generator = torch.Generator().manual_seed(0)
    coarse, noise, x = torch.randn(3, 16, 4, 8, 8, generator=generator)
    sigma = torch.tensor(700.0)
    before_step = mix_in(coarse, noise, RefineConfig(), 25)
    assert torch.allclose(before_step(0, x, sigma), coarse + sigma * noise)
    none = mix_in(coarse, noise, RefineConfig(strength=0.0), 25)
    assert torch.equal(none(0, x, sigma), x)
    assert torch.allclose(before_step(24, x, torch.tensor(0.002)), x, atol=1e-3)


def test_depth_channels_unfold_row_by_row():
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    depth = (10 * rows + columns)[None]
    channels = depth_channels(depth, 2, 3)
    assert channels.shape == (1, 9, 2, 3)
    expected = (depth / depth.max())[0]
    for channel in range(9):
        row, column = divmod(channel, 3)
        assert torch.allclose(channels[0, channel], expected[row::3, column::3])


@pytest.mark.parametrize("when", [0, 3, 20, 34, 40])
def test_cancelling_frees_everything(model, frames, depths, when):
    def stop(done, total):
        if done >= when:
            raise Cancelled

    before = live_bytes()
    with pytest.raises(Cancelled):
        make(model, frames, depths, on_step=stop)
    assert live_bytes() == before


def test_progress_ends_at_its_total(model, frames, depths):
    told = []
    make(model, frames, depths, on_step=lambda *step: told.append(step))
    assert told[0][0] == 0 and told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_estimating_depth_counts_as_progress(model, frames, depths, monkeypatch):
    def estimate(network, images):
        return images.mean(dim=1)

    monkeypatch.setattr("hi3d_core.depth.estimate", estimate)
    with_depth = dataclasses.replace(model, depth=torch.nn.Linear(1, 1))
    without, told = [], []
    make(model, frames, depths, on_step=lambda *step: without.append(step))
    make(with_depth, frames, None, on_step=lambda *step: told.append(step))
    assert told[-1][0] == told[-1][1] == without[-1][1] + len(frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": 1.5}, "strength"),
        ({"strength": math.nan}, "strength"),
        ({"sharpness": -1.0}, "sharpness"),
        ({"cond_aug": math.nan}, "cond_aug"),
        ({"elevation": math.nan}, "elevation"),
        ({"size": 1000}, "multiple of 64"),
    ],
)
def test_bad_settings_are_refused(model, frames, depths, change, message):
    with pytest.raises(ValueError, match=message):
        make(model, frames, depths, **change)


def test_wrong_counts_are_refused(model, frames, depths):
    with pytest.raises(ValueError, match="15 frames, expected 16"):
        make(model, frames[:15], depths)
    with pytest.raises(ValueError, match="12 depth maps"):
        make(model, frames, depths[:12])
    with pytest.raises(ValueError, match="16 depth maps"):
        make(model, frames, depths[:, :0])
    with pytest.raises(ValueError, match="picture"):
        make(model, frames, depths, picture=torch.zeros(0, 0, 3))
    with pytest.raises(ValueError, match="depth"):
        make(model, frames, None)
    with pytest.raises(ValueError, match="orbit model, expected the refiner model"):
        make(tiny_model("orbit"), frames, depths)
    with pytest.raises(ValueError, match="picture"):
        make(model, frames, depths, picture=torch.full((8, 8, 3), 2.0))
