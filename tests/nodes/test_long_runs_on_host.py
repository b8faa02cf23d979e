"""What shows only after a while on a real ComfyUI server: memory, cancelling, a queue of prompts.

Runs where COMFYUI_PATH names a checkout; see tests/tools/host.py. About fifteen minutes on two
cores.
"""

import copy
import dataclasses
import json
import time
from statistics import median

import psutil
import pytest
import torch

from hi3d_core.networks.depth_network import build_depth_network
from hi3d_core.weights.convert import convert

from ..core.test_weights_load import save_official
from ..core.tiny_models import TINY_DEPTH, filled, tiny_model
from ..tools.host import ROOT
from ..tools.small_settings import small
from .orbit_graph import POSED, VIEWS
from .test_diffusion_nodes import UNSEEN

pytestmark = pytest.mark.slow

RUNS = 20
GROWTH = 50 * 2**20  # bytes


@pytest.fixture(scope="module")
def tiny_weights(server):
    """Both stages at a tiny width, where the host looks for models."""
    folder = server.base / "models" / "hi3d"
    folder.mkdir(parents=True, exist_ok=True)
    depth = filled(build_depth_network(TINY_DEPTH), torch.Generator().manual_seed(2))
    models = {
        "orbit": tiny_model("orbit"),
        "refiner": dataclasses.replace(tiny_model("refiner"), depth=depth),
    }
    for stage, model in models.items():
        source = save_official(model, server.base / f"{stage}.pt")
        convert(source, folder / f"hi3d_{stage}.safetensors", dtype=None, unseen=UNSEEN)
        source.unlink()


def graph_of(name):
    return small(json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8")))


def only(graph, kind):
    """The id of the one node of a kind."""
    (found,) = [key for key, node in graph.items() if node["class_type"] == kind]
    return found


def process_of(server):
    """The host's process, by the folder it was started with."""
    for each in psutil.process_iter(["cmdline"]):
        if str(server.base) in (each.info["cmdline"] or []):
            return each
    raise AssertionError("the host's process is gone")


def ended(server, prompt_id, seconds=600):
    done = server.wait(prompt_id, seconds)
    assert done["status"]["status_str"] == "success", server.log.read_text()[-3000:]
    return done


def test_twenty_runs_leave_no_memory_behind(server):
    graph = graph_of("orbit_video_to_mesh")
    mesher = graph[only(graph, "Hi3DNeusMesher")]["inputs"]
    process, resident = process_of(server), []
    for run in range(RUNS + 1):
        mesher["seed"] = run
        ended(server, server.queue(graph))
        resident.append(process.memory_info().rss)
    print("MB after each run:", *(round(each / 2**20) for each in resident))
    # From the second quarter on: what the first runs load stays, and single runs scatter.
    assert median(resident[-5:]) - median(resident[1:6]) < GROWTH
    assert resident[-1] - resident[0] < GROWTH


def test_two_prompts_in_the_queue_both_end_with_their_own_mesh(server):
    first, second = graph_of("orbit_video_to_mesh"), graph_of("posed_photos_to_mesh")
    first[only(first, "Hi3DNeusMesher")]["inputs"]["seed"] = 100
    second[only(second, "Hi3DNeusMesher")]["inputs"]["seed"] = 100
    ids = [server.queue(first), server.queue(second)]
    names = set()
    for prompt_id in ids:
        done = ended(server, prompt_id)
        names |= {
            text
            for each in done["outputs"].values()
            for text in each.get("text", [])
            if text.endswith(".glb")
        }
    assert len(names) == 2
    assert all((server.base / "output" / name).read_bytes()[:4] == b"glTF" for name in names)


PICTURE = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "horse.png"}},
    "2": {
        "class_type": "Hi3DLoader",
        "inputs": {
            **{"orbit_checkpoint": "auto", "refiner_checkpoint": "auto", "depth_model": "auto"},
            "dtype": "fp32",
        },
    },
}
SOLVER = {"seed": 0, "steps": 200, "solver": "euler", "size": 64, "elevation": 10.0}
# Each long node with settings that take it far longer than it is given, and with quick ones.
LONG = {
    "Hi3DNeusMesher": (
        VIEWS,
        {
            **{**POSED, "quality": "high", "face_budget": 4000, "texture_size": 256, "seed": 0},
            **{"align": True, "refine_cameras": False},
        },
        {"quality": "preview"},
    ),
    "Hi3DGaussianSplatInterpolator": (
        VIEWS,
        {**POSED, "between": 2, "steps": 30_000, "count": 5000, "seed": 0},
        {"steps": 20},
    ),
    "Hi3DOrbitVideoSampler": (
        PICTURE,
        {**SOLVER, "model": ["2", 0], "image": ["1", 0], "guidance": 2.5},
        None,  # untrained networks paint no object: there is no clean end to come to
    ),
    "Hi3DVideoRefiner": (
        PICTURE,
        {
            **{**SOLVER, "model": ["2", 0], "image": ["3", 0], "input_image": ["1", 0]},
            "strength": 1.0,
        },
        None,
    ),
}
REPEATED = {"class_type": "RepeatImageBatch", "inputs": {"image": ["4", 0], "amount": 16}}
SMALLER = {
    "class_type": "ImageScale",
    "inputs": {
        **{"image": ["1", 0], "upscale_method": "area", "width": 64, "height": 64},
        "crop": "disabled",
    },
}


@pytest.mark.parametrize("kind", LONG)
def test_cancelling_in_the_middle_ends_it_and_the_next_run_is_clean(server, tiny_weights, kind):
    before, slow, quick = LONG[kind]
    graph = copy.deepcopy(before)
    if kind == "Hi3DVideoRefiner":
        graph |= {"3": REPEATED, "4": SMALLER}
    graph["9"] = {"class_type": kind, "inputs": dict(slow)}
    graph["10"] = {"class_type": "PreviewAny", "inputs": {"source": ["9", 0]}}
    if quick is not None:  # compiles the kernels, once a server, which nothing can cancel
        warm = copy.deepcopy(graph)
        warm["9"]["inputs"] |= {**quick, "seed": 2}
        ended(server, server.queue(warm))
    prompt_id = server.queue(graph)
    time.sleep(12)
    assert server.get("/queue")["queue_running"], server.log.read_text()[-3000:]
    began = time.monotonic()
    server.post("/interrupt", {})
    done = server.wait(prompt_id, 60)
    print(f"{kind} ended {time.monotonic() - began:.1f} s after it was cancelled")
    told = dict(done["status"]["messages"])
    assert told["execution_interrupted"]["node_id"] == "9"
    if quick is not None:
        graph["9"]["inputs"] |= {**quick, "seed": 1}
        ended(server, server.queue(graph))
