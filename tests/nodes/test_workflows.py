"""The bundled workflows, checked without a host against snapshots of hosts' /object_info."""

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..tools.workflow_checks import declared, problems, to_api
from ..tools.workflow_layouts import LAYOUTS, WITHOUT_MODELS

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / "workflows"
INPUT = WORKFLOWS / "input"
RELEASED = ROOT / "tests" / "workflows" / "released"
SNAPSHOTS = sorted((Path(__file__).parent / "object_info").glob("*.json"))
NEWEST = "0.28.0"
NAMES = sorted(file.stem for file in (WORKFLOWS / "api").glob("*.json"))
RETAKE = "take the snapshot anew: python -m tests.tools.take_object_info"
REDRAW = "draw the workflows anew: python -m tests.tools.draw_workflows"
TITLE = 30  # pixels of a node's title, above its position


def read(file):
    return json.loads(Path(file).read_text(encoding="utf-8"))


def snapshot(version=NEWEST):
    return read(Path(__file__).parent / "object_info" / f"{version}.json")


def api(name):
    return read(WORKFLOWS / "api" / f"{name}.json")


def drawn(name):
    return read(WORKFLOWS / f"{name}.json")


def note(name):
    (found,) = [node for node in drawn(name)["nodes"] if node["type"] == "MarkdownNote"]
    return found["widgets_values"][0]


def of_class(graph, kind):
    return [node["inputs"] for node in graph.values() if node["class_type"] == kind]


def test_each_workflow_has_both_forms_and_a_small_picture():
    assert len(NAMES) >= 7 and set(NAMES) == set(LAYOUTS)
    assert {file.stem for file in WORKFLOWS.glob("*.json")} == set(NAMES)
    assert {file.stem for file in WORKFLOWS.glob("*.jpg")} == set(NAMES)
    for name in NAMES:
        file = WORKFLOWS / f"{name}.jpg"
        assert file.stat().st_size < 100_000
        with Image.open(file) as picture:
            assert picture.width >= 600
            assert np.asarray(picture.convert("L")).std() > 10, "the picture is empty"


def test_no_other_folder_hides_them():
    """Of these, the host serves the first that is there, at the one address of templates."""
    searched = ("example_workflows", "example", "examples", "workflow", "workflows")
    assert [each for each in searched if (ROOT / each).is_dir()] == ["workflows"]


@pytest.mark.parametrize("version", [file.stem for file in SNAPSHOTS])
@pytest.mark.parametrize("name", NAMES)
def test_a_host_would_take_it(name, version):
    assert problems(api(name), snapshot(version)) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_drawn_workflow_says_what_the_api_workflow_says(name):
    made = to_api(drawn(name), snapshot())
    wanted = api(name)
    assert {node: made[node]["class_type"] for node in made} == {
        node: wanted[node]["class_type"] for node in wanted
    }, REDRAW
    for node, expected in wanted.items():
        assert made[node]["inputs"] == expected["inputs"], f"{node}: {REDRAW}"
        if "_meta" in expected:
            assert made[node]["_meta"] == expected["_meta"], REDRAW


def test_what_is_wrong_is_found():
    info, good = snapshot(), api("orbit_video_to_mesh")
    assert problems(good, info) == []

    def wrong(change):
        graph = copy.deepcopy(good)
        change(graph)
        return problems(graph, info)

    def inputs(graph, node):
        return graph[node]["inputs"]

    (said,) = wrong(lambda g: g["5"].update(class_type="Hi3DMesher"))[:1]
    assert "no such node" in said
    assert "lacks seed" in wrong(lambda g: inputs(g, "5").pop("seed"))[0]
    assert "no input sed" in wrong(lambda g: inputs(g, "5").update(sed=1))[0]
    assert "'best' is not among" in wrong(lambda g: inputs(g, "5").update(quality="best"))[0]
    assert "not within" in wrong(lambda g: inputs(g, "4").update(elevation=90.0))[0]
    assert "whole number of steps" in wrong(lambda g: inputs(g, "5").update(face_budget=1500))[0]
    assert "expected BOOLEAN" in wrong(lambda g: inputs(g, "5").update(align=1))[0]
    assert "3 gives IMAGE" in wrong(lambda g: inputs(g, "5").update(mask=["3", 0]))[0]
    assert "has 2" in wrong(lambda g: inputs(g, "5").update(mask=["3", 2]))[0]
    assert "isn't there" in wrong(lambda g: inputs(g, "5").update(mask=["99", 0]))[0]
    moved = drawn("orbit_video_to_mesh")
    mesher = next(node for node in moved["nodes"] if node["type"] == "Hi3DNeusMesher")
    mesher["widgets_values"].insert(1, 7)
    with pytest.raises(ValueError, match="values for no input"):
        to_api(moved, info)


@pytest.mark.parametrize("name", NAMES)
def test_the_note_says_what_it_wants(name):
    text, graph = note(name), api(name)
    assert len(text) > 500 and "Y is up" in text
    for file in named_files(graph):
        assert file.split("/")[0] in text
    wants_models = bool(of_class(graph, "Hi3DLoader"))
    assert wants_models == (name not in WITHOUT_MODELS)
    if wants_models:
        assert "models/hi3d" in text and "want a GPU" in text
        assert "first_stage.pt" in text and "Hi3D-Official" in text
        assert "second_stage.pt" in text and "huggingface.co/hbyang/Hi3D" in text
    else:
        assert "No models, no GPU" in text
    for loader in of_class(graph, "CheckpointLoaderSimple"):
        assert loader["ckpt_name"] in text and "models/checkpoints" in text


def boxes(workflow):
    """Left, top, right, bottom of each node with its title."""
    made = {}
    for node in workflow["nodes"]:
        (x, y), (width, height) = node["pos"], node["size"]
        made[node["id"]] = (x, y - TITLE, x + width, y + height)
    return made


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_overlaps_and_wires_lead_to_the_right(name):
    workflow = drawn(name)
    nodes = boxes(workflow)
    for one in nodes:
        for other in nodes:
            assert one >= other or not overlap(nodes[one], nodes[other]), (one, other)
    for _, source, _, target, _, _ in workflow["links"]:
        left, right = nodes[source], nodes[target]
        below = left[0] == right[0] and left[3] < right[1]
        assert left[2] < right[0] or below, (source, target)
    groups = []
    for group in workflow["groups"]:
        x, y, width, height = group["bounding"]
        groups.append((x, y, x + width, y + height))
    for index, group in enumerate(groups):
        assert not any(overlap(group, other) for other in groups[:index])
    for node in workflow["nodes"]:
        x0, y0, x1, y1 = nodes[node["id"]]
        around = [g for g in groups if g[0] <= x0 and g[1] <= y0 and x1 <= g[2] and y1 <= g[3]]
        touched = [g for g in groups if overlap(g, nodes[node["id"]])]
        assert len(around) == len(touched) == (node["type"] != "MarkdownNote"), node["id"]


def named_files(graph):
    reads = {"LoadImage": "image", "LoadVideo": "file", "Hi3DLoadViews": "path"}
    named = [inputs[key] for kind, key in reads.items() for inputs in of_class(graph, kind)]
    return {name for name in named if name}


def test_files_that_workflows_read_are_here_and_no_others():
    released = (read(file) for file in RELEASED.glob("*/api/*.json"))
    named = set().union(*map(named_files, [*map(api, NAMES), *released]))
    for name in named:
        assert (INPUT / name).exists(), name
    views = read(INPUT / "posed_views" / "transforms.json")["frames"]
    posed = {f"posed_views/{frame['file_path']}" for frame in views}
    known = named - {"posed_views"} | posed | {"posed_views/transforms.json", "README.md"}
    assert {f.relative_to(INPUT).as_posix() for f in INPUT.rglob("*") if f.is_file()} == known


def todays_entry(node):
    """A schema as /object_info says it: inputs in order, and outputs."""
    schema = node.define_schema()
    inputs = {"required": {}, "optional": {}}
    for each in schema.inputs:
        kind = each.io_type
        if kind == "MULTI":
            kind = ",".join(getattr(one, "io_type", one) for one in each.types)
        kept = ("default", "min", "max", "step", "options", "control_after_generate")
        settings = {key: getattr(each, key) for key in kept if getattr(each, key, None) is not None}
        optional = getattr(each, "optional", False)
        inputs["optional" if optional else "required"][each.id] = (kind, settings)
    outputs = [(each.io_type, each.display_name) for each in schema.outputs]
    return inputs, outputs


@pytest.mark.parametrize("pack_on_a_stand_in", [False], indirect=True, ids=["host"])
def test_the_snapshot_holds_todays_schemas(node):
    info = snapshot()
    assert {name for name in info if name.startswith("Hi3D")} == set(node), RETAKE
    for name, each in node.items():
        entry = info[name]
        inputs, outputs = todays_entry(each)
        for kind, expected in inputs.items():
            # In order, since the frontend saves values by their place.
            assert list(entry["input"].get(kind, {})) == list(expected), f"{name}: {RETAKE}"
        given = declared(entry)
        for key, (kind, settings) in (inputs["required"] | inputs["optional"]).items():
            assert given[key][0] == kind, f"{name}.{key}: {RETAKE}"
            kept = {each: given[key][1].get(each) for each in settings}
            assert kept == settings, f"{name}.{key}: {RETAKE}"
        assert list(zip(entry["output"], entry["output_name"], strict=True)) == outputs, RETAKE
        assert entry["display_name"] == each.define_schema().display_name


def test_defaults_are_values_that_the_frontend_keeps():
    for name, entry in snapshot().items():
        if not name.startswith("Hi3D"):
            continue
        for key, (kind, settings) in declared(entry).items():
            if kind == "INT" and "step" in settings:
                off = (settings["default"] - settings["min"]) % settings["step"]
                assert off == 0, f"{name}.{key}: the frontend would round its default"


@pytest.mark.parametrize("version", [file.stem for file in SNAPSHOTS])
@pytest.mark.parametrize("name", NAMES)
def test_comfys_own_checker_takes_it(name, version, tmp_path):
    comfy = os.environ.get("COMFY_CLI") or shutil.which("comfy")
    if not comfy:
        pytest.skip("install comfy-cli, or name its `comfy` in COMFY_CLI, to run its checker")
    info = Path(__file__).parent / "object_info" / f"{version}.json"
    for file in (WORKFLOWS / "api" / f"{name}.json", WORKFLOWS / f"{name}.json"):
        command = [comfy, "--skip-prompt", "--no-enable-telemetry", "workflow", "validate"]
        done = subprocess.run(
            [*command, "--workflow", str(file), "--input", str(info)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stdout + done.stderr


RELEASES = sorted(RELEASED.glob("*/*.json"))


@pytest.mark.parametrize("file", RELEASES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_workflows_of_past_releases_still_load(file):
    """Beside each lies its API twin of then: what it said it still says."""
    graph = to_api(read(file), snapshot())
    assert problems(graph, snapshot()) == []
    for node, then in read(file.parent / "api" / file.name).items():
        assert graph[node]["class_type"] == then["class_type"]
        now = {key: graph[node]["inputs"].get(key) for key in then["inputs"]}
        assert now == then["inputs"], node


def test_releases_are_kept():
    assert len(RELEASES) >= 7
