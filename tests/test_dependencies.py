"""Declared dependencies fit the imports, and documented extras and dependency groups exist."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from leukemia_data import __version__

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
PACKAGES = ("leukemia_data", "leukemia_models", "cli")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported_names(path: Path) -> set[tuple[str, str]]:
    """Pairs of module and name that a file imports; the name is empty in ``import module``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {(node.module, alias.name) for alias in node.names}
    return found


IMPORTED = {pair for path in SOURCES for pair in imported_names(path)}


def is_private(module: str) -> bool:
    """Whether a module of joblib is not in its documentation."""
    return any(part.startswith("_") or part == "externals" for part in module.split("."))


def test_private_modules_of_joblib_are_bounded_above_and_hold_what_is_imported():
    private = {(module, name) for module, name in IMPORTED if module.split(".")[0] == "joblib" and is_private(module)}
    assert private
    (joblib,) = [found for found in map(Requirement, PROJECT["dependencies"]) if found.name == "joblib"]
    installed = Version(version("joblib"))
    assert joblib.specifier.contains(installed)
    assert not joblib.specifier.contains(f"{installed.major}.{installed.minor + 1}")
    assert [(module, name) for module, name in private if not hasattr(importlib.import_module(module), name)] == []


@pytest.mark.parametrize("library", ["hdf5plugin", "torchvision", "lightning", "hypothesis", "moto", "pytest"])
def test_what_only_tests_use_is_no_dependency_of_the_library(library):
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    assert library not in {Requirement(text).name for text in [*PROJECT["dependencies"], *extras]}
    assert library not in {module.split(".")[0] for module, _ in IMPORTED}


def test_the_version_has_one_source():
    assert "version" not in PROJECT
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "leukemia_data.__version__"}
    assert str(Version(__version__)) == __version__


def test_the_makefile_installs_extras_and_groups_that_exist():
    recipes = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = {name for names in re.findall(r'"\.\[([\w,]+)\]"', recipes) for name in names.split(",")}
    groups = set(re.findall(r"--group (\w+)", recipes))
    assert extras
    assert extras <= PROJECT["optional-dependencies"].keys()
    assert {"lint", "test"} <= groups <= PYPROJECT["dependency-groups"].keys()


def test_pages_and_messages_install_from_the_checkout_and_not_from_an_index():
    pages = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
    from_an_index = re.compile(r"pip install [\"']?leukemia")
    files = [*pages, *SOURCES]
    found = [path.relative_to(ROOT) for path in files if from_an_index.search(path.read_text(encoding="utf-8"))]
    assert found == []
