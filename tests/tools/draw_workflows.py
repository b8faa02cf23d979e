"""Make the workflows that people open, from the API workflows, by the real frontend.

    COMFYUI_PATH=... COMFYUI_PYTHON=... python -m tests.tools.draw_workflows [--no-pictures] [names]

`workflows/api/<name>.json` is the source. The frontend reads it as if it were dropped there; the
nodes are put into the columns of `workflow_layouts.py`, groups and a note (of the texts in
`workflow_notes`) are added, and the frontend's own saved form is written to
`workflows/<name>.json`. A picture of the graph goes beside it, for ComfyUI's list of templates;
what runs on a CPU is run for it first, at small settings.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from PIL import Image

from .frontend import fit, load, opened, press_run, set_widgets
from .host import ROOT, running_host
from .take_object_info import CHECKPOINTS
from .workflow_layouts import LAYOUTS, NOTE_PARTS, NOTE_WIDTH, SIZES, WITHOUT_MODELS

WORKFLOWS = ROOT / "workflows"
NOTES = Path(__file__).parent / "workflow_notes"
# Small, but good to look at.
SHOWN = {
    "Hi3DNeusMesher": {"quality": "preview"},
    "Hi3DMeshRenderer": {"size": 256},
}
_PICTURE_WIDTH, _PICTURE_BYTES = 960, 95_000

_DRAW = """async ([api, layout, sizes, note, noteSize, name]) => {
  await app.loadApiJson(JSON.parse(api), name);
  const graph = app.graph, gap = 60, pad = 30, title = 30, head = 50;
  const lost = Object.keys(JSON.parse(api)).filter(id => !graph.getNodeById(Number(id)));
  if (lost.length) throw new Error(`${name}: the host does not know the nodes ${lost}`);
  for (const node of graph.nodes) {
    const [width, height] = node.computeSize();
    const [atLeastWide, atLeastHigh] = sizes[node.type] ?? [330, 0];
    node.setSize([Math.max(width, atLeastWide), Math.max(height, atLeastHigh)]);
    for (const widget of node.widgets ?? [])
      if (widget.name === 'control_after_generate') widget.value = 'fixed';
  }
  let x = 0;
  for (const group of layout) {
    const rowHeights = [];
    if (group.rows)
      for (const column of group.columns)
        column.forEach((id, row) => {
          const high = graph.getNodeById(id).size[1];
          rowHeights[row] = Math.max(rowHeights[row] ?? 0, high);
        });
    const left = x;
    let bottom = 0;
    x += pad;
    for (const column of group.columns) {
      let y = 0, widest = 0;
      column.forEach((id, row) => {
        const node = graph.getNodeById(id);
        node.pos = [x, y + title];
        y += title + (rowHeights[row] ?? node.size[1]) + pad;
        widest = Math.max(widest, node.size[0]);
      });
      bottom = Math.max(bottom, y);
      x += widest + gap;
    }
    x += pad - gap;
    const made = new LiteGraph.LGraphGroup(group.title);
    made.pos = [left, -head];
    made.size = [x - left, head + bottom];
    made.color = '#7496a5';
    graph.add(made);
    x += gap;
  }
  const text = LiteGraph.createNode('MarkdownNote');
  text.title = 'Read me';
  graph.add(text);
  text.pos = [-noteSize[0] - gap, title - head];
  text.setSize(noteSize);
  text.widgets[0].value = note;
  text.color = '#432';
  text.bgcolor = '#653';
  app.canvas.ds.scale = 0.6;
  app.canvas.ds.offset = [noteSize[0] + gap + 120, 220];
  const {workflow, output} = await app.graphToPrompt();
  return JSON.stringify({workflow, output});
}"""


def main(arguments: list[str]) -> None:
    """Draw the named workflows, or all."""
    names = [each for each in arguments if each != "--no-pictures"]
    with (
        tempfile.TemporaryDirectory() as folder,
        running_host(Path(folder) / "host", CHECKPOINTS) as server,
        opened(server.url, 2400, 1350) as page,
    ):
        for name in names or sorted(LAYOUTS):
            workflow = draw(page, name)
            (WORKFLOWS / f"{name}.json").write_text(json.dumps(workflow, indent=1) + "\n")
            if "--no-pictures" in arguments:
                continue
            picture = photograph(page, workflow, run=name in WITHOUT_MODELS)
            size = save_small(picture, WORKFLOWS / f"{name}.jpg")
            print(f"{name}: {len(workflow['nodes'])} nodes, picture of {size} bytes")


def draw(page: Any, name: str) -> dict[str, Any]:
    """The workflow in the frontend's form.

    Raises ValueError if the frontend would queue something else than the API workflow says.
    """
    api = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    note = "\n\n".join(
        (NOTES / f"{part}.md").read_text(encoding="utf-8").strip()
        for part in (name, *NOTE_PARTS.get(name, ("models", "cameras")))
    )
    lines = sum(1 + len(line) // 62 for line in note.splitlines())
    noted = [NOTE_WIDTH, 80 + 11 * lines]
    made = json.loads(
        page.evaluate(_DRAW, [json.dumps(api), LAYOUTS[name], SIZES, note, noted, name])
    )
    for node, wanted in api.items():
        queued = made["output"].get(node, {}).get("inputs", {})
        # The frontend's own widgets (the 3D viewer's) are no inputs.
        got = {key: value for key, value in queued.items() if key in wanted["inputs"] or value}
        if got != wanted["inputs"]:
            raise ValueError(f"{name}, node {node}: expected {wanted['inputs']}, got {got}")
    workflow: dict[str, Any] = made["workflow"]
    # The same every time it is drawn.
    workflow["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"hi3d/workflows/{name}"))
    workflow["nodes"].sort(key=lambda node: node["id"])
    return workflow


def photograph(page: Any, workflow: dict[str, Any], *, run: bool) -> Image.Image:
    """The graph as the frontend draws it; run: with its results."""
    load(page, workflow)
    if run:
        set_widgets(page, SHOWN)
        fit(page)
        kind, detail = press_run(page)
        if kind != "execution_success":
            raise ValueError(f"{kind}: {detail}")
    left, top, width, height = fit(page, with_note=False)
    page.wait_for_timeout(4000)  # viewers draw
    shot = page.screenshot(clip={"x": left, "y": top, "width": width, "height": height})
    return Image.open(io.BytesIO(shot)).convert("RGB")


def save_small(picture: Image.Image, file: Path) -> int:
    """Write a JPEG of less than 100 KB; returns its size."""
    width = min(_PICTURE_WIDTH, picture.width)
    size = (width, round(picture.height * width / picture.width))
    scaled = picture.resize(size, Image.Resampling.LANCZOS)
    for quality in range(90, 20, -5):
        scaled.save(file, quality=quality, optimize=True)
        if file.stat().st_size < _PICTURE_BYTES:
            break
    return file.stat().st_size


if __name__ == "__main__":
    main(sys.argv[1:])
