"""What may import what, and that the lists of requirements agree."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "nodes", "server"}
CORE = sorted((ROOT / "hi3d_core").rglob("*.py"))


def _imported(path: Path) -> set[str]:
    """Top-level names of all absolute imports in a file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_core_never_imports_the_host_nor_itself_by_name(path):
    assert not _imported(path) & (HOST | {"hi3d_core"})


@pytest.mark.parametrize("path", sorted((ROOT / "nodes").glob("*.py")), ids=lambda p: p.name)
def test_nodes_reach_core_by_relative_imports(path):
    assert "hi3d_core" not in _imported(path)


def test_optional_packages_are_imported_in_one_place():
    offenders = [
        p
        for p in CORE
        if p.name != "optional.py" and _imported(p) & {"gsplat", "onnxruntime", "warp"}
    ]
    assert offenders == []


def test_requirements_repeat_the_projects_dependencies_without_torch():
    text = (ROOT / "pyproject.toml").read_text()
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M).group(1)
    declared = re.findall(r'"([^"]+)"', block)
    required = (ROOT / "requirements.txt").read_text().split()
    assert required == declared
    assert not any(re.match(r"torch", line) for line in required)


def test_importing_the_library_touches_no_optional_package_and_no_device():
    code = (
        "import sys, hi3d_core.pipeline; import torch; "
        "assert not torch.cuda.is_initialized(); "
        "assert not {'gsplat', 'onnxruntime', 'warp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_kernels_are_compiled_by_our_own_njit():
    offenders = [p for p in CORE if p.name != "jit.py" and "numba.njit" in p.read_text()]
    assert not offenders
    for path in CORE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "numba":
                assert "njit" not in {alias.name for alias in node.names}, path


def test_code_compiled_under_one_name_is_not_loaded_under_another(tmp_path):
    """ComfyUI imports the same files as part of a package of another name."""
    program = (
        "import numpy as np\n"
        "from {package}.surface.field import redistance\n"
        "ramp = np.linspace(-1, 1, 512, dtype='f4').reshape(8, 8, 8)\n"
        "print(redistance.__module__, redistance(ramp).sum())\n"
    )
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "hi3d_core").symlink_to(ROOT / "hi3d_core", target_is_directory=True)
    said = []
    for folder, package in ((ROOT, "hi3d_core"), (tmp_path, "pack.hi3d_core")):
        for _ in range(2):  # compiles, and loads what is kept
            done = subprocess.run(
                [sys.executable, "-c", program.format(package=package)],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            said.append(done.stdout.split())
    assert [module for module, _ in said] == ["hi3d_core.surface.field"] * 2 + [
        "pack.hi3d_core.surface.field"
    ] * 2
    assert len({total for _, total in said}) == 1
