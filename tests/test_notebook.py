"""docs/first-hour.ipynb: its cells run from top to bottom and give the stored outputs."""

from __future__ import annotations

import ast
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from leukemia_data import LeukemiaWarning

PATH = Path(__file__).parents[1] / "docs" / "first-hour.ipynb"
NOTEBOOK = json.loads(PATH.read_text(encoding="utf-8"))
CODE_CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
TRAINED = "trained"
"""Tag of cells whose outputs depend on the machine in the last digits of a training."""


def run_cell(code: str, names: dict[str, Any]) -> object:
    """Run a cell as a notebook does, and return the value of its last line if that is an expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def output_of(value: object) -> dict[str, list[str]]:
    """Output that a notebook stores for a value, apart from pictures."""
    data = {"text/plain": repr(value).splitlines(keepends=True)}
    if hasattr(value, "_repr_html_"):
        data["text/html"] = value._repr_html_().splitlines(keepends=True)
    return data


def test_it_is_a_notebook_without_traces_of_a_machine():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    assert PATH.stat().st_size < 200_000
    text = json.dumps(NOTEBOOK)
    assert not re.search(r"/(tmp|home|root|Users)/|[A-Z]:\\\\", text)
    assert "image/png" in text


@pytest.mark.slow
def test_cells_run_and_give_what_is_stored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeukemiaWarning)
        for cell in CODE_CELLS:
            value = run_cell("".join(cell["source"]), names)
            stored = cell["outputs"][0]["data"] if cell["outputs"] else {}
            assert bool(stored) == (value is not None), cell["source"]
            if value is None or TRAINED in cell["metadata"].get("tags", ()) or "image/png" in stored:
                continue
            assert output_of(value) == stored, cell["source"]
