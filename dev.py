#!/usr/bin/env python3
"""The project's one command: `python dev.py demo | demo-orbit | test | check | setup`.

Plain Python with nothing installed, so that it also runs on Windows. Every command first makes
the environment in `.venv` (once; a second run finds it ready) and works inside it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
# The torch that the tests run with. On Linux the package index serves a CUDA build; set
# HI3D_TORCH to other pip arguments (say, those of a CPU build) before the first run to choose.
TORCH = os.environ.get("HI3D_TORCH", "torch==2.13.0")
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt")
VALIDATOR = ROOT / "tests" / "tools"
PICTURE, ORBIT, ELEVATION = "toy.png", "horse_orbit.mp4", "10"


def main() -> int:
    """Run the command that was asked for; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = {
        "demo": demo,
        "demo-orbit": demo_orbit,
        "test": test,
        "check": check,
        "setup": lambda: 0,
    }
    parser.add_argument("command", choices=commands)
    command = parser.parse_args().command
    make_environment()
    return commands[command]()


def demo() -> int:
    """One picture, painted all around by the small model in the package, as a mesh."""
    small = ("--orbit-checkpoint", "hi3d-tiny", "--refiner-checkpoint", "hi3d-tiny")
    # Preview: painted frames of 256 pixels hold no more.
    return produce("generate", PICTURE, *small, "--quality", "preview", "--device", "cpu")


def demo_orbit() -> int:
    """The example orbit, reconstructed."""
    return produce("reconstruct", ORBIT)


def produce(command: str, source: str, *options: str) -> int:
    """Run a command that makes a mesh; it and a contact sheet land in outputs/."""
    outputs = ROOT / "outputs"
    outputs.mkdir(exist_ok=True)
    name = Path(source).stem
    mesh, sheet = outputs / f"{name}.glb", outputs / f"{name}.png"
    code = run(
        "-m", "hi3d_core", command, f"workflows/input/{source}",
        "--out", str(mesh),
        "--sheet", str(sheet),
        "--splat-out", str(outputs / f"{name}_splat.ply"),
        "--report", str(outputs / f"{name}.json"),
        "--elevation", ELEVATION,
        *options,
    )  # fmt: skip
    if code == 0:
        print(f"\nmesh:          {mesh}\ncontact sheet: {sheet}")
    return code


def test() -> int:
    """Lint, types and all tests."""
    return check() or run("-m", "pytest")


def check() -> int:
    """Lint, format and types."""
    return (
        run("-m", "ruff", "check", ".")
        or run("-m", "ruff", "format", "--check", ".")
        or run("-m", "mypy")
    )


def make_environment() -> None:
    """Create `.venv` with all requirements, or do nothing if it is up to date."""
    if sys.version_info < (3, 10):  # noqa: UP036 (whatever `python3` happens to be)
        sys.exit(f"Python 3.10 to 3.13 is needed, this is {sys.version.split()[0]}")
    stamp = ENVIRONMENT / "installed"
    wanted = hashlib.sha256(TORCH.encode())
    for name in (*REQUIREMENTS, "training/requirements.txt", "tests/tools/package.json"):
        wanted.update((ROOT / name).read_bytes())
    if stamp.exists() and stamp.read_text() == wanted.hexdigest():
        return
    if not PYTHON.exists():
        print(f"making {ENVIRONMENT}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    has_torch = [str(PYTHON), "-c", "import torch"]
    if subprocess.run(has_torch, stderr=subprocess.DEVNULL, check=False).returncode:
        install(*shlex.split(TORCH))
    install(*(argument for name in REQUIREMENTS for argument in ("-r", name)))
    npm = shutil.which("npm")
    if npm:  # the Khronos validator; without it its tests say that they skip
        subprocess.run(
            [npm, "install", "--no-package-lock", "--no-fund", "--no-audit", "--silent"],
            cwd=VALIDATOR,
            check=False,
        )
    stamp.write_text(wanted.hexdigest())


def install(*arguments: str) -> None:
    """Install packages into the environment."""
    print("installing", *arguments, flush=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *arguments], check=True, cwd=ROOT)


def run(*arguments: str) -> int:
    """Run the environment's Python at the project's root."""
    return subprocess.run([str(PYTHON), *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
