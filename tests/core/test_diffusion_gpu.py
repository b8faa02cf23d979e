"""Both diffusion stages on CUDA against the CPU: the same pictures, and nothing left behind."""

import gc

import pytest
import torch

from hi3d_core.orbit import OrbitConfig, generate_orbit
from hi3d_core.refine import RefineConfig, refine_orbit
from hi3d_core.sample_options import SampleOptions

from .test_orbit import SIZE, Cancelled, picture
from .tiny_models import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = torch.device("cuda")


def paint(device, options=None, on_step=None):
    return generate_orbit(
        tiny_model("orbit"),
        picture(),
        10.0,
        OrbitConfig(size=SIZE, steps=3, options=options or SampleOptions()),
        generator=torch.Generator().manual_seed(0),
        device=device,
        on_step=on_step,
    )


def refine(device, frames):
    return refine_orbit(
        tiny_model("refiner"),
        frames,
        picture(),
        10.0,
        RefineConfig(size=2 * SIZE, steps=3),
        generator=torch.Generator().manual_seed(0),
        depths=torch.rand(16, 48, 48, generator=torch.Generator().manual_seed(1)),
        device=device,
    )


def allocated():
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


@pytest.fixture(autouse=True)
def exact_products():
    """Without TF32, whose 10 bits the comparison would see."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


def assert_alike(ours, expected):
    difference = (ours - expected).abs()
    assert float(difference.max()) <= 2 / 255 + 1e-6
    assert float((difference > 0).float().mean()) < 0.02


@pytest.mark.parametrize(
    "options",
    [
        SampleOptions(),
        SampleOptions(guide_at_once=False, frames_at_once=4, feed_forward_chunks=4),
    ],
)
def test_cuda_paints_what_the_cpu_paints(options):
    assert_alike(paint(CUDA, options), paint(None))


def test_cuda_refines_what_the_cpu_refines():
    frames = paint(None)
    assert_alike(refine(CUDA, frames), refine(None, frames))


def test_a_run_leaves_nothing_on_the_device():
    paint(CUDA)  # the libraries' own workspaces stay
    before = allocated()
    frames = paint(CUDA)
    refine(CUDA, frames)
    assert allocated() == before


@pytest.mark.parametrize("when", [0, 1, 2, 6])
def test_a_cancelled_run_leaves_nothing_on_the_device(when):
    def stop(done, total):
        if done >= when:
            raise Cancelled

    paint(CUDA)
    before = allocated()
    with pytest.raises(Cancelled):
        paint(CUDA, on_step=stop)
    assert allocated() == before


def test_only_the_network_in_use_is_on_the_device():
    """The most held at once is far below all networks together."""
    model = tiny_model("orbit")
    sizes = [
        sum(parameter.nbytes for parameter in network.parameters())
        for network in (model.unet, model.vae, model.image_encoder)
    ]
    before, held = allocated(), []
    generate_orbit(
        model,
        picture(),
        0.0,
        OrbitConfig(size=SIZE, steps=2),
        generator=torch.Generator().manual_seed(0),
        device=CUDA,
        on_step=lambda done, total: held.append(torch.cuda.memory_allocated() - before),
    )
    assert held[0] < min(sizes)  # before anything is done
    assert held[1] < sizes[0]  # encoder and autoencoder are away again
