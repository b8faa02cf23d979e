"""Help pages and labels: they must say what the schemas and the code say."""

import ast
import importlib.util
import json
import re
from functools import cache
from pathlib import Path

import pytest

from .test_schemas import IDS

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "web" / "docs"
WRITER = ROOT / "tests" / "tools" / "write_labels.py"

# What may follow a range.
UNITS = ("pixels", "degrees", "texels", "triangles", "world units", "of the side")
PICTURES = {".jpg", ".png", ".svg"}


@cache
def writer():
    spec = importlib.util.spec_from_file_location("hi3d_write_labels", WRITER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def schemas():
    return writer().schemas()


def page(name):
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def section(text, title):
    """The lines under a heading, up to the next one."""
    _, _, rest = text.partition(f"\n## {title}\n")
    assert rest, f"the page has no section {title!r}"
    return rest.partition("\n## ")[0].strip().splitlines()


def table(lines, columns=2):
    """The rows of the table among the lines, its head left out.

    A help page's have two columns, since the host's panel is narrow.
    """
    rows = [line.strip().strip("|").split("|") for line in lines if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert all(len(row) == columns for row in cells), cells
    return cells[2:]


def parted(row):
    """A row's name, what its second cell states in italics, and the words after that."""
    found = re.fullmatch(r"\*(.+?)\.\* (.+)", row[1])
    assert found, row
    return row[0], found[1], found[2]


def number(value):
    if isinstance(value, int) and value + 1 in {2**32, 2**64}:
        return f"2^{(value + 1).bit_length() - 1} - 1"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def stated_range(each):
    """What a page must say an input takes."""
    optional = ", optional" if getattr(each, "optional", False) else ""
    if each.io_type in {"INT", "FLOAT"}:
        return f"{number(each.min)} to {number(each.max)}"
    if each.io_type == "COMBO":
        return ", ".join(each.options)
    if each.io_type in {"BOOLEAN", "STRING"}:
        return {"BOOLEAN": "on or off", "STRING": "text"}[each.io_type] + optional
    kinds = [kind.io_type for kind in getattr(each, "types", [each])]
    return " or ".join(kinds) + optional


def stated_default(each):
    """What a page must say it is when left alone; empty for what must be connected."""
    if each.io_type == "COMBO":
        return getattr(each, "default", None) or each.options[0]
    value = getattr(each, "default", None)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    return number(value)


def test_there_is_a_page_for_each_node_and_no_other(schemas):
    assert set(schemas) == set(IDS)
    assert {each.stem for each in PAGES.glob("*.md")} == set(schemas)


@pytest.mark.parametrize("name", IDS)
def test_a_page_names_the_inputs_as_they_are(schemas, name):
    schema, text = schemas[name], page(name)
    assert text.startswith(f"# {schema.display_name}\n")
    rows = table(section(text, "Inputs"))
    assert [row[0] for row in rows] == [f"`{each.id}`" for each in schema.inputs]
    for each, (_, states, meaning) in zip(schema.inputs, map(parted, rows), strict=True):
        taken, _, default = states.partition("; default ")
        expected = stated_range(each)
        allowed = [expected, f"{expected}, or a file", *(f"{expected} {unit}" for unit in UNITS)]
        assert taken in allowed, (each.id, taken)
        assert default == stated_default(each), each.id
        assert len(meaning) > 20, each.id


@pytest.mark.parametrize("name", IDS)
def test_a_page_names_the_outputs_as_they_are(schemas, name):
    rows = [parted(row) for row in table(section(page(name), "Outputs"))]
    given = [(f"`{each.display_name}`", each.io_type) for each in schemas[name].outputs]
    assert [(output, kind) for output, kind, _ in rows] == given
    assert all(len(meaning) > 10 for _, _, meaning in rows)


@pytest.mark.parametrize("name", IDS)
def test_a_page_has_the_parts_that_all_have(name):
    text = page(name)
    assert not re.search(r"<(?!/?br)[a-zA-Z]", text), "the host may drop HTML"
    assert section(text, "When to use it") and section(text, "Example")
    assert any(line.startswith("- ") for line in section(text, "If it stops"))


@pytest.mark.parametrize("name", IDS)
def test_the_nodes_of_ours_that_a_page_names_exist(schemas, name):
    named = set(re.findall(r"\*\*(Hi3D [^*]+)\*\*", page(name)))
    assert named and named <= {each.display_name for each in schemas.values()}


@cache
def spoken():
    """Each text in our code, the parts between its insertions."""
    found = []
    for folder in ("nodes", "hi3d_core"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [each.value for each in node.values if isinstance(each, ast.Constant)]
                    found.append(parts)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append([node.value])
    return found


@pytest.mark.parametrize("name", IDS)
def test_the_errors_that_a_page_quotes_are_said_by_the_code(name):
    """Three dots stand for what the code inserts."""
    heads = re.findall(r"(?m)^- ((?:`[^`]+`(?:, or |, )?)+)", page(name))
    quoted = [message for head in heads for message in re.findall(r"`([^`]+)`", head)]
    assert quoted
    for message in quoted:
        wanted = [part.strip() for part in message.split("...") if part.strip()]
        assert any(
            all(any(want in part for part in parts) for want in wanted) for parts in spoken()
        ), message


@pytest.mark.parametrize("name", IDS)
def test_a_page_shows_a_picture_and_links_nowhere_that_the_host_cannot_follow(name):
    text = page(name)
    shown = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text)
    assert shown and all(len(words) > 10 for words, _ in shown)
    for _, file in shown:
        assert re.fullmatch(r"images/[\w-]+\.\w+", file), file
        assert (PAGES / file).is_file(), file
    # The host prefixes the addresses of pictures alone, not those of links.
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)]+)\)", text)
    assert all(link.startswith("https://") for link in links), links


def test_each_picture_is_shown_small_and_whole():
    shown = {
        file
        for each in PAGES.glob("*.md")
        for file in re.findall(r"\(images/([^)]+)\)", page(each.stem))
    }
    files = [each for each in (PAGES / "images").iterdir() if each.suffix in PICTURES]
    assert {each.name for each in files} == shown
    for each in files:
        assert each.stat().st_size < 60_000, each.name
        if each.suffix != ".svg":
            from PIL import Image

            with Image.open(each) as picture:
                picture.load()
                assert picture.width <= 1200


@pytest.mark.parametrize("file", [ROOT / "docs" / "comfyui.md", PAGES / "Hi3DLoader.md"])
def test_the_model_files_are_those_that_are_looked_for(file):
    from hi3d_core.weights.find import MODEL_FILES

    rows = re.findall(
        r"(?m)^(?:\||-) (orbit|refiner|depth|image encoder)[^|:`]*[|:] `([^`]+)`(?: \||;) ([^|;]+)",
        file.read_text(encoding="utf-8"),
    )
    assert {"orbit", "refiner", "depth"} <= {kind for kind, _, _ in rows}
    for kind, name, size in rows:
        model = MODEL_FILES[kind.replace(" ", "_")]
        assert name in model.names
        stated, true = (
            {round(float(each), 1) for each in re.findall(r"\d+\.\d+", text)}
            for text in (size, model.size)
        )
        assert stated and stated <= true, (name, size)


def test_the_page_for_users_names_what_is_there():
    file = ROOT / "docs" / "comfyui.md"
    text = file.read_text(encoding="utf-8")
    rows = table(section(text, "Workflows"), columns=3)
    listed = {each.stem for each in (ROOT / "workflows" / "api").glob("*.json")}
    assert {row[0].strip("`") for row in rows} == listed
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https://") or (file.parent / link).exists(), link


def test_the_labels_file_says_what_the_schemas_say(schemas):
    written = writer().FILE.read_text(encoding="utf-8")
    assert written == writer().as_text(schemas), "run python tests/tools/write_labels.py"


def test_labels_hold_nothing_that_the_host_reads_as_syntax(schemas):
    """Its translator gives braces, @ and | a meaning; a dot would part a key."""

    def texts(value):
        if isinstance(value, dict):
            for key, each in value.items():
                assert "." not in key
                yield from texts(each)
        else:
            yield value

    made = json.loads(writer().as_text(schemas))
    assert not [text for text in texts(made) if set(text) & set("{}@|")]
