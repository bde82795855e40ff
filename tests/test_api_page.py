"""docs/api.md compared with the code: every public name with its signature; the examples run."""

from __future__ import annotations

import inspect
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import leukemia_data as ld
import leukemia_models as lm

from .forked_python import forked_python
from .leukemia_data.helpers import python_environment

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python([^\n]*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ROWS = dict(re.findall(r"^\| `([A-Za-z.]+\.\w+)(\(.*?\))` \|", PAGE, re.MULTILINE))
OWNERS = {"ld": ld, "lm": lm, "Cache": ld.Cache, "Split": ld.Split, "Part": ld.Part, "Run": lm.Run}
SETUP = """
import csv, sys, warnings
from pathlib import Path
warnings.simplefilter("error")
import leukemia_data as ld
# Generated cells are few, which a training and a reader of predictions are warned of.
warnings.simplefilter("ignore", ld.LeukemiaWarning)
# Neither figures nor the size of the experiment are the point here.
from leukemia_models.experiments.batchnorm_experiment import ExperimentSize, run_experiment
from tests.blank_figures import blank_figures
small = ExperimentSize(num_subjects=9, train_cells_per_subject=4, valid_cells_per_subject=4, batch_size=8)
run_experiment.__kwdefaults__["size"] = small
quick = blank_figures()
quick.__enter__()
ld.write_sample("cells", subjects=12, cells=6)
images = sorted(path.relative_to("cells").as_posix() for path in Path("cells").rglob("*.bmp"))
with open("lab.csv", "w", newline="") as file:
    csv.writer(file).writerows([["Path", "label"], *([name, name.split("/")[-2]] for name in images[:12])])
"""


class Dots:
    def __repr__(self) -> str:
        return "..."


def shown_default(default: object) -> object:
    """The default, or dots for an object without a literal."""
    is_plain = default is inspect.Parameter.empty or isinstance(default, str | int | float | tuple | type(None))
    return default if is_plain else Dots()


def shown(thing: Callable[..., object]) -> str:
    """Its signature as the page has it: without annotations and self."""
    signature = inspect.signature(thing)
    kept = [
        each.replace(annotation=inspect.Parameter.empty, default=shown_default(each.default))
        for each in signature.parameters.values()
        if each.name != "self"
    ]
    return str(signature.replace(parameters=kept, return_annotation=inspect.Signature.empty))


def test_signatures_are_those_of_the_code():
    for name, arguments in ROWS.items():
        owner, _, attribute = name.partition(".")
        assert arguments == shown(getattr(OWNERS[owner], attribute)), name


@pytest.mark.parametrize("package", [ld, lm])
def test_every_public_name_is_on_the_page(package):
    short = {ld: "ld", lm: "lm"}[package]
    for name in package.__all__:
        thing = getattr(package, name)
        if inspect.isfunction(thing):
            assert f"{short}.{name}" in ROWS, name
        assert re.search(rf"\b{name}\b", PAGE), name
    assert set(dir(package)) == set(package.__all__)


def test_every_row_has_an_example_that_uses_it():
    for name in ROWS:
        attribute = name.partition(".")[2]
        of_it = [code for names, code in BLOCKS if attribute in names.split()]
        assert of_it, name
        assert any(re.search(rf"\b{attribute}\b", code) for code in of_it), name


@pytest.mark.slow
def test_examples_run(tmp_path):
    script = tmp_path / "examples.py"
    guarded = "".join(f"    {line}\n" for _, code in BLOCKS for line in code.splitlines())
    script.write_text(f"{SETUP}if __name__ == '__main__':\n{guarded}", encoding="utf-8")
    done = subprocess.run(
        [*forked_python(), script],
        cwd=tmp_path,
        env=python_environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("preview.png", "augmented.png", "predictions.csv", "runs/a/final.safetensors", "audit/audit.json"):
        assert (tmp_path / name).stat().st_size > 100, name
