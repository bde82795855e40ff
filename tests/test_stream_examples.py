"""The examples of docs/streams.md, each run as the main script, on a small cache."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from leukemia_data.sources.sample_set import write_sample

from .forked_python import forked_python
from .leukemia_data.helpers import build, python_environment

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "streams.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^#+ ([^\n]*)\n(?:(?!^#).)*?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
(SETUP,) = re.findall(r"^```python setup\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
EXAMPLES = [pytest.param(code, id=heading) for heading, code in _BLOCK.findall(PAGE)]
RUN_ALL = """
import json, pathlib, runpy, sys, traceback

ended = {}
for name in sys.argv[1:]:
    try:
        runpy.run_path(name, run_name="__main__")
        ended[name] = ""
    except BaseException:
        ended[name] = traceback.format_exc()
pathlib.Path("ended.json").write_text(json.dumps(ended), encoding="utf-8")
"""


def test_every_example_was_found():
    assert len(EXAMPLES) == PAGE.count("```python\n") >= 7


@pytest.fixture(scope="module")
def caches(tmp_path_factory) -> Path:
    """Folder with one cache: 12 subjects with 12 cells each, at 32 px."""
    root = tmp_path_factory.mktemp("streams")
    write_sample(root / "cells", num_subjects=12, cells_per_subject=12, seed=0)
    build(root / "cells", root / "cache", sizes_px=(32,))
    return root / "cache"


@pytest.fixture(scope="module")
def failures(caches, tmp_path_factory) -> dict[str, str]:
    """Heading and traceback of each example that failed: scripts of one process, which loads torch once."""
    folder = tmp_path_factory.mktemp("examples")
    beginning = SETUP.replace('Path("demo/cache"), size_px=128', f"Path({str(caches)!r}), size_px=32")
    assert beginning != SETUP
    headings = {}
    for number, example in enumerate(EXAMPLES):
        headings[f"example{number}.py"] = example.id
        (folder / f"example{number}.py").write_text(beginning + example.values[0], encoding="utf-8")
    (folder / "run_all.py").write_text(RUN_ALL, encoding="utf-8")
    done = subprocess.run(
        [*forked_python(), "run_all.py", *headings],
        cwd=folder,
        env=python_environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "ended.json").read_text(encoding="utf-8"))
    assert found.keys() == headings.keys()
    return {headings[name]: failure for name, failure in found.items() if failure}


@pytest.mark.slow
@pytest.mark.parametrize("example", [example.id for example in EXAMPLES])
def test_example_runs(example, failures):
    assert example not in failures, failures[example]
