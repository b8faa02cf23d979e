"""The workflows in ComfyUI's own frontend, in a headless Chromium.

Runs where COMFYUI_PATH names a checkout, with the package playwright and a Chromium. With
HI3D_KEEP_PICTURES set, docs/comfyui.png is taken anew.
"""

import importlib.util
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from ..tools.frontend import CHROMIUM, area, fit, load, opened, press_run, queued, set_widgets
from ..tools.host import ROOT, running_host
from ..tools.take_object_info import CHECKPOINTS
from ..tools.workflow_layouts import LAYOUTS

pytestmark = pytest.mark.slow

WORKFLOWS = ROOT / "workflows"
RELEASED = sorted((ROOT / "tests" / "workflows" / "released").glob("*/*.json"))
WANTED = {
    "Hi3DNeusMesher": {"quality": "preview", "texture_size": 1024},
    "Hi3DMeshRenderer": {"size": 256},
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("set COMFYUI_PATH to a ComfyUI checkout to run this on the real host")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("pip install playwright to run this in a browser")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no Chromium at {CHROMIUM}: install it, or name it in CHROMIUM")
    folder = tmp_path_factory.mktemp("server") / "host"
    with running_host(folder, CHECKPOINTS) as server, opened(server.url) as opened_page:
        yield opened_page


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


def shot(page, kind):
    """A node's pixels (H, W, 3) in [0, 1]."""
    data = page.screenshot(clip=area(page, kind))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32) / 255


def brown(pixels):
    """The share of pixels that have the horse's colour."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return float(((red > 0.3) & (red > 1.2 * green) & (green > 1.15 * blue)).mean())


@pytest.mark.parametrize(
    "file",
    [*(WORKFLOWS / f"{name}.json" for name in LAYOUTS), *RELEASED],
    ids=lambda file: f"{file.parent.name}-{file.stem}",
)
def test_the_frontend_queues_what_the_api_workflow_says(page, file):
    load(page, read(file))
    graph = queued(page)
    wanted = read(file.parent / "api" / file.name)
    assert set(graph) == set(wanted)
    for node, expected in wanted.items():
        assert graph[node]["class_type"] == expected["class_type"]
        given = {key: graph[node]["inputs"].get(key) for key in expected["inputs"]}
        assert given == expected["inputs"], node


def test_run_shows_the_mesh_in_its_colours_and_a_moving_orbit(page):
    load(page, read(WORKFLOWS / "orbit_video_to_mesh.json"))
    set_widgets(page, WANTED)
    fit(page)
    assert brown(shot(page, "Preview3D")) < 0.001
    kind, detail = press_run(page)
    assert kind == "execution_success", detail
    for _ in range(60):  # the viewer loads the file
        if brown(shot(page, "Preview3D")) > 0.03:
            break
        page.wait_for_timeout(500)
    pixels = shot(page, "Preview3D")
    assert brown(pixels) > 0.03, "the viewer shows no horse, or one without its colours"
    first = shot(page, "SaveAnimatedWEBP")
    moved = False
    for _ in range(20):
        page.wait_for_timeout(150)
        moved = moved or bool(np.abs(shot(page, "SaveAnimatedWEBP") - first).max() > 0.3)
    assert moved, "the orbit's preview stands still"
    if os.environ.get("HI3D_KEEP_PICTURES"):
        _keep(page)


def _keep(page):
    """docs/comfyui.png: the graph with its results, without the note."""
    left, top, width, height = fit(page, with_note=False)
    page.wait_for_timeout(2000)
    clip = {"x": left, "y": top, "width": width, "height": height}
    picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(ROOT / "docs/comfyui.png", optimize=True)
