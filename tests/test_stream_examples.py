"""The examples of docs/streams.md, each run as a script of its own on a small cache."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from leukemia_data.generated.synthetic import write_sample

from .leukemia_data.helpers import build, python_environment

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "streams.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^#+ ([^\n]*)\n(?:(?!^#).)*?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
(SETUP,) = re.findall(r"^```python setup\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
EXAMPLES = [pytest.param(code, id=heading) for heading, code in _BLOCK.findall(PAGE)]


def test_every_example_was_found():
    assert len(EXAMPLES) == PAGE.count("```python\n") >= 7


@pytest.fixture(scope="module")
def caches(tmp_path_factory) -> Path:
    """Folder with one cache: 12 subjects with 12 cells each, at 32 px."""
    root = tmp_path_factory.mktemp("streams")
    write_sample(root / "cells", num_subjects=12, cells_per_subject=12, seed=0)
    build(root / "cells", root / "cache", sizes_px=(32,))
    return root / "cache"


@pytest.mark.slow
@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs(code, caches, tmp_path):
    script = tmp_path / "example.py"
    beginning = SETUP.replace('Path("demo/cache"), size_px=128', f"Path({str(caches)!r}), size_px=32")
    assert beginning != SETUP
    script.write_text(beginning + code, encoding="utf-8")
    environment = python_environment() | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
