"""What can be said of a workflow without a host, given its /object_info.

A graph here is an API workflow: {id: {"class_type": ..., "inputs": {name: value or [id, slot]}}}.
"""

from __future__ import annotations

from typing import Any

Info = dict[str, dict[str, Any]]
Graph = dict[str, dict[str, Any]]

_NOTES = {"MarkdownNote", "Note"}
_PLAIN = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
_CONTROLS = {"fixed", "randomize", "increment", "decrement"}


def declared(entry: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """A node class's inputs in order: {name: (type, settings)}; a combo's type is COMBO."""
    inputs = {}
    for given in (entry["input"].get(kind, {}) for kind in ("required", "optional")):
        for name, (kind, *settings) in given.items():
            options = dict(settings[0]) if settings else {}
            if isinstance(kind, list):  # how older schemas write a combo
                inputs[name] = ("COMBO", {**options, "options": kind})
            else:
                inputs[name] = (kind, options)
    return inputs


def to_api(workflow: dict[str, Any], info: Info) -> Graph:
    """What the frontend would queue of a workflow in its own format.

    Raises ValueError for values that belong to no widget.
    """
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] in _NOTES:
            continue
        inputs = _widget_values(node, info[node["type"]])
        for each in node["inputs"]:
            if each.get("link") is not None:
                inputs[each["name"]] = sources[each["link"]]
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
        if "title" in node:
            graph[str(node["id"])]["_meta"] = {"title": node["title"]}
    return graph


def _widget_values(node: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    values = list(node.get("widgets_values") or [])
    inputs = {}
    for name, (kind, settings) in declared(entry).items():
        if kind not in _PLAIN and "widgetType" not in settings:
            continue
        if not values:  # an input that came after the workflow was saved
            if "default" in settings:
                inputs[name] = settings["default"]
            continue
        inputs[name] = values.pop(0)
        if name == "seed" and values and values[0] in _CONTROLS:
            values.pop(0)
    # The button for uploads, and the 3D viewer.
    if values and values not in (["image"], [""]):
        raise ValueError(f"{node['type']} {node['id']} has values for no input: {values}")
    return inputs


def problems(graph: Graph, info: Info) -> list[str]:
    """What a host with these nodes would refuse, or its frontend would change."""
    found = []
    for node_id, node in graph.items():
        name = f"{node_id} {node['class_type']}"
        entry = info.get(node["class_type"])
        if entry is None:
            found.append(f"{name}: no such node")
            continue
        inputs = declared(entry)
        found += [f"{name}: no input {each}" for each in node["inputs"] if each not in inputs]
        found += [
            f"{name}: lacks {each}"
            for each in entry["input"].get("required", {})
            if each not in node["inputs"]
        ]
        for key, value in node["inputs"].items():
            if key in inputs:
                check = _wire_problem if isinstance(value, list) else _value_problem
                said = check(value, *inputs[key], graph, info)
                found += [f"{name}: {key}: {said}"] if said else []
    if not any(info.get(node["class_type"], {}).get("output_node") for node in graph.values()):
        found.append("no node puts anything out")
    return found


def _wire_problem(wire: list[Any], kind: str, _: Any, graph: Graph, info: Info) -> str | None:
    source, slot = wire
    if source not in graph or graph[source]["class_type"] not in info:
        return f"comes from {source}, which isn't there"
    outputs = info[graph[source]["class_type"]]["output"]
    if slot >= len(outputs):
        return f"comes from output {slot} of {source}, which has {len(outputs)}"
    if kind != "*" and outputs[slot] not in kind.split(","):
        return f"expected {kind}, {source} gives {outputs[slot]}"
    return None


def _value_problem(value: Any, kind: str, settings: dict[str, Any], *_: Any) -> str | None:
    kind = settings.get("widgetType", kind)
    types = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COMBO": str}
    if kind not in types:
        return f"wants a wire of {kind}, got {value!r}"
    if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
        return f"expected {kind}, got {value!r}"
    if kind == "COMBO" and value not in settings["options"]:
        return f"{value!r} is not among {settings['options']}"
    if kind in {"INT", "FLOAT"}:
        low, high = settings.get("min", value), settings.get("max", value)
        if not low <= value <= high:
            return f"{value} is not within {low} and {high}"
        # The frontend rounds a number to whole steps from the smallest one.
        if kind == "INT" and (value - low) % settings.get("step", 1):
            return f"{value} is no whole number of steps of {settings['step']} from {low}"
    return None
