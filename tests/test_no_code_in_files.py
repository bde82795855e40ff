"""No file that is read can run code: the packages neither unpickle nor evaluate texts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import leukemia_data

ROOT = Path(leukemia_data.__file__).parents[1]
PATHS = sorted(
    path for package in ("leukemia_data", "leukemia_models", "cli") for path in (ROOT / package).rglob("*.py")
)
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle", "yaml", "runpy"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {
    ("torch", "load"), ("torch", "save"), ("torch", "hub"), ("np", "load"), ("numpy", "load"), ("np", "save"),
    ("np", "fromregex"), ("joblib", "load"), ("joblib", "dump"), ("pd", "read_pickle"), ("pd", "read_hdf"),
    ("pandas", "read_pickle"), ("pd", "eval"),
}  # fmt: skip
NAMES = {"allow_pickle", "weights_only", "load_pickle", "to_pickle", "read_pickle", "Unpickler"}
READS_TORCH_FILES = "leukemia_models/training/start_file.py"
"""The only module that reads what torch pickled: as weights, and for the error's class it imports pickle."""
FROM = {("torch", "load"), ("joblib", "load"), ("numpy", "load"), ("torch.serialization", "load")}


def code_in_files(tree: ast.AST) -> Iterator[str]:
    """Calls in a module that could run code from a file."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                yield from [module] if module.split(".")[0] in MODULES else []
                yield from (f"{module}.{alias.name}" for alias in names if (module, alias.name) in FROM)
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield name
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if (owner, name) in ATTRIBUTES:
                yield f"{owner}.{name}"
            case ast.Attribute(attr=name) | ast.keyword(arg=str(name)) | ast.Name(id=name) if name in NAMES:
                yield name
            case _:
                pass


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import dill as d", "torch.load(path)", "from torch import load",
        "np.load(p, allow_pickle=True)", "f(allow_pickle=True)", "joblib.load(p)", "pd.read_pickle(p)", "eval(text)",
        "import os, marshal", "exec(text)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(text: str) -> None:
    assert list(code_in_files(ast.parse(text)))


def test_no_module_can_run_code_out_of_a_file() -> None:
    assert len(PATHS) > 200
    found = {path: list(code_in_files(ast.parse(path.read_text(encoding="utf-8")))) for path in PATHS}
    found = {path.relative_to(ROOT).as_posix(): names for path, names in found.items() if names}
    assert found.keys() == {READS_TORCH_FILES}
    assert sorted(found[READS_TORCH_FILES]) == ["pickle", "torch.load", "weights_only"]


def test_files_of_torch_are_read_as_tensors_alone() -> None:
    tree = ast.parse((ROOT / READS_TORCH_FILES).read_text(encoding="utf-8"))
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "pickle"]
    errors = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "UnpicklingError"]
    [call] = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
    assert {ast.unparse(keyword) for keyword in call.keywords} >= {"weights_only=True"}
    assert len(uses) == len(errors) == 1
