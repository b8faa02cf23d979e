import pytest
import torch

from hi3d_core import sample_options
from hi3d_core.sample_options import SampleOptions, free_bytes, guides_at_once

from .tiny_models import tiny_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["frames_at_once", "feed_forward_chunks", "reuse_every"])
def test_counts_start_at_one(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        SampleOptions(**{name: 0})


def test_guidance_is_split_where_memory_is_short(monkeypatch):
    unet = tiny_model("orbit").unet
    latents = torch.Size((16, 4, 64, 64))

    def together(free, **options):
        monkeypatch.setattr(sample_options, "free_bytes", lambda device: free)
        return guides_at_once(SampleOptions(**options), unet, latents, CPU)

    assert together(2**40) and not together(2**20)
    assert not together(2**40, guide_at_once=False) and together(2**20, guide_at_once=True)
    # Somewhere between, parts of the feed-forward layers decide.
    limits = [free for free in (2**power for power in range(20, 41)) if together(free)]
    at_once = [
        free
        for free in (2**power for power in range(20, 41))
        if together(free, feed_forward_chunks=1)
    ]
    assert set(at_once) <= set(limits)
    least = 2 * 2 * 16 * 64 * 64 * 32 * 4 * 17  # half of it free, both branches, float32
    assert not together(least) and together(least + 1)


def test_a_machine_has_free_memory():
    assert free_bytes(CPU) > 2**20
