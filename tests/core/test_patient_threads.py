"""OpenMP is told before it is loaded, and only once."""

import os
import subprocess
import sys

import pytest

LOADED = """
import os, sys
import hi3d_core.__main__
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules or "numba" in sys.modules)
"""


@pytest.mark.parametrize("before", [None, "active"])
def test_command_line_has_threads_sleep_unless_told_otherwise(before):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if before is not None:
        environment["OMP_WAIT_POLICY"] = before
    told = subprocess.run(
        [sys.executable, "-c", LOADED],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    # What is set after torch's or numba's loading would not be read.
    assert told.stdout.split() == [before or "passive", "False"]


@pytest.mark.parametrize(
    "module", ["training.render_dataset", "training.train_tiny", "training.evaluate"]
)
def test_training_scripts_set_it_before_they_load_torch(module):
    spy = f"""
import os, sys
class Spy:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "numba"):
            print(os.environ.get("OMP_WAIT_POLICY"))
            sys.stdout.flush()
            os._exit(0)
sys.meta_path.insert(0, Spy())
import {module}
"""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    told = subprocess.run(
        [sys.executable, "-c", spy], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["passive"]
