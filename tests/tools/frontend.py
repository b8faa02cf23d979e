"""ComfyUI's own frontend in a headless Chromium.

Wants the package playwright and a Chromium (CHROMIUM names it, if it isn't /usr/bin/chromium).
The 3D viewer draws in software, so no graphics card is needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
_ARGUMENTS = (
    *("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--ignore-gpu-blocklist", "--disable-dev-shm-usage"),
)
_READY = "window.app?.graph && window.app.extensionManager && window.LiteGraph"
_LEFT, _TOP, _MARGIN = 70, 90, 30  # pixels that the frontend's bars take, and air

_FIT = """([left, top, margin, largest, withNote]) => {
  const nodes = app.graph.nodes.filter(each => withNote || each.type !== 'MarkdownNote');
  const boxes = [...nodes, ...app.graph.groups].map(each => each.boundingRect);
  const x = Math.min(...boxes.map(b => b[0])), y = Math.min(...boxes.map(b => b[1]));
  const width = Math.max(...boxes.map(b => b[0] + b[2])) - x;
  const height = Math.max(...boxes.map(b => b[1] + b[3])) - y;
  const ds = app.canvas.ds;
  ds.scale = Math.min((innerWidth - left - 2 * margin) / width,
                      (innerHeight - top - 2 * margin) / height, largest);
  ds.offset[0] = (left + margin) / ds.scale - x;
  ds.offset[1] = (top + margin) / ds.scale - y;
  app.canvas.setDirty(true, true);
  return [width * ds.scale, height * ds.scale];
}"""

_SET = """values => {
  for (const node of app.graph.nodes)
    for (const widget of node.widgets ?? [])
      if (widget.name in (values[node.type] ?? {})) widget.value = values[node.type][widget.name];
}"""

_AREA = """kind => {
  const node = app.graph.nodes.find(each => each.type === kind), ds = app.canvas.ds;
  const box = app.canvas.canvas.getBoundingClientRect();
  return {x: box.left + (node.pos[0] + ds.offset[0]) * ds.scale,
          y: box.top + (node.pos[1] + ds.offset[1]) * ds.scale,
          width: node.size[0] * ds.scale, height: node.size[1] * ds.scale};
}"""

_LISTEN = """() => {
  window.ended = null;
  for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
    app.api.addEventListener(kind, event => { window.ended = [kind, event.detail] }, {once: true});
}"""


@contextmanager
def opened(url: str, width: int = 1920, height: int = 1080) -> Iterator[Any]:
    """A page with the frontend, ready for a workflow."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(120_000)
            page.goto(url)
            page.wait_for_function(_READY)
            page.wait_for_timeout(2000)  # extensions register for a moment longer
            yield page
        finally:
            browser.close()


def load(page: Any, workflow: dict[str, Any]) -> None:
    """Open a workflow in the UI format, as dropping its file would."""
    page.evaluate(
        "async text => { await app.loadGraphData(JSON.parse(text)) }", json.dumps(workflow)
    )
    page.wait_for_timeout(1500)  # viewers and previews start


def set_widgets(page: Any, values: dict[str, dict[str, Any]]) -> None:
    """Set widgets of all nodes of a class: {class: {widget: value}}."""
    page.evaluate(_SET, values)


def fit(page: Any, *, largest: float = 1.0, with_note: bool = True) -> tuple[float, ...]:
    """Bring the whole graph into view; returns where it is: left, top, width, height."""
    width, height = page.evaluate(_FIT, [_LEFT, _TOP, _MARGIN, largest, with_note])
    page.wait_for_timeout(500)
    return _LEFT, _TOP, width + 2 * _MARGIN, height + 2 * _MARGIN


def area(page: Any, kind: str) -> dict[str, float]:
    """Where on the page the first node of a class is, without its title, for a screenshot."""
    found: dict[str, float] = page.evaluate(_AREA, kind)
    return found


def queued(page: Any) -> dict[str, Any]:
    """What the frontend would queue of the open workflow: an API workflow."""
    text = page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)")
    graph: dict[str, Any] = json.loads(text)
    return graph


def press_run(page: Any, seconds: float = 600) -> tuple[str, dict[str, Any]]:
    """Press the button; returns the event that ended the run, and what it said."""
    page.evaluate(_LISTEN)
    page.get_by_role("button", name="Run", exact=True).first.click()
    page.wait_for_function("window.ended", timeout=1000 * seconds)
    kind, detail = page.evaluate("window.ended")
    return kind, detail
