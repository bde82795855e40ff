"""Imports run one way: between the packages, between the layers of leukemia_data, and nowhere in a circle.

The layers are this file's table. A module may import from its own layer and from those above it in the table; a new
module has to be given its place here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import leukemia_data

from .leukemia_data.helpers import python_environment

ROOT = Path(leukemia_data.__file__).parents[1]
PACKAGES = ("leukemia_data", "leukemia_models", "cli")
LAYERS = {
    "values": {
        "errors",
        "record",
        "operation_checks",
        "gabor_kernel",
        "frame_operations",
        "contrast_operations",
        "filter_operations",
        "colour_operations",
        "operations",
        "recipe",
        "fingerprint",
        "window",
        "found_image",
        "samples",
        "augmentation",
        "split_spec",
        "toml_lines",
        "spreadsheet",
    },
    "pure functions": {
        "image_ops",
        "filters",
        "stain",
        "step_windows",
        "step_pixels",
        "decode",
        "preprocess",
        "moments",
        "ordering",
        "batch_plan",
        "augment_draws",
        "splits",
        "leaks",
        "subject_groups",
        "split_draw",
        "held_out",
        "synthetic_cell",
        "frame_check",
        "frame_digest",
        "perceptual_hash",
        "near_duplicates",
        "audit_image",
        "audit_pairs",
        "audit_balance",
        "audit",
        "audit_split",
        "audit_notes",
    },
    "files": {
        "atomic",
        "free_memory",
        "source",
        "source_tree",
        "source_table",
        "source_file",
        "reference_table",
        "lab_table",
        "audit_files",
        "submission_list",
        "manifest",
        "shard",
        "index",
        "lock",
        "synthetic",
    },
    "work": {
        "cache",
        "shard_task",
        "receipts",
        "shard_maker",
        "prior",
        "plan",
        "build",
        "process_engine",
        "verify",
        "audit_input",
        "reference_index",
        "subject_recovery",
        "recovery_report",
        "collect",
    },
    "pictures": {"preview", "audit_sheet"},
    "streams": {
        "batch",
        "buffers",
        "residency",
        "pixel_store",
        "loader",
        "dataset",
        "file_stream",
        "augment_ops",
        "augment",
    },
}
HEAVY = {"torch", "torchvision", "matplotlib", "pandas", "sklearn", "scipy"}
LAYER_OF = {module: number for number, modules in enumerate(LAYERS.values()) for module in modules}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported_names(node: ast.AST, module: str) -> Iterator[str]:
    """Full names that an import statement may load: modules, or modules and what is taken from them."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        is_package = MODULES[module].name == "__init__.py"
        parents = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
        base = ".".join([*parents, *([node.module] if node.module else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def all_imports(module: str) -> set[str]:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return {name for node in ast.walk(tree) for name in imported_names(node, module)}


IMPORTS = {module: all_imports(module) for module in MODULES}


def internal_imports(module: str) -> set[str]:
    """Modules of this project that a module imports; a package counts where nothing below it is meant."""
    found = IMPORTS[module] & MODULES.keys()
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)} - {module}


def top_levels(module: str) -> set[str]:
    return {name.split(".")[0] for name in IMPORTS[module]}


def test_all_modules_were_found():
    assert {f"leukemia_data.{name}" for name in ("shard", "plan", "dataset")} <= MODULES.keys()
    assert "leukemia_data.manifest" in internal_imports("leukemia_data.shard")
    assert internal_imports("leukemia_data.errors") == set()


@pytest.mark.parametrize("module", MODULES)
def test_packages_import_downwards_only(module):
    allowed = PACKAGES[: PACKAGES.index(module.split(".")[0]) + 1]
    assert {name.split(".")[0] for name in internal_imports(module)} <= set(allowed)
    assert "tests" not in top_levels(module)
    assert "benchmarks" not in top_levels(module)


def test_every_module_of_leukemia_data_has_one_layer():
    modules = {name.partition(".")[2] for name in MODULES if name.startswith("leukemia_data.")}
    assert modules == LAYER_OF.keys()
    assert sum(map(len, LAYERS.values())) == len(LAYER_OF)


@pytest.mark.parametrize("module", sorted(LAYER_OF))
def test_layers_import_downwards_only(module):
    imported = [name.partition(".")[2] for name in internal_imports(f"leukemia_data.{module}")]
    assert [name for name in imported if name and LAYER_OF[name] > LAYER_OF[module]] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_cycles_not_even_through_imports_inside_functions(package):
    graph = {module: internal_imports(module) for module in MODULES if module.split(".")[0] == package}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("cli")])
def test_imports_stand_at_the_top_of_the_module(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]
    inside = {
        node.lineno
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert inside == set()


@pytest.mark.parametrize("module", sorted(LAYER_OF))
def test_torch_stands_only_where_batches_are_handed_to_a_network_and_matplotlib_where_pictures_are_drawn(module):
    heavy = top_levels(f"leukemia_data.{module}") & HEAVY
    allowed = {"pictures": {"matplotlib"}, "streams": {"torch"}}.get(list(LAYERS)[LAYER_OF[module]], set())
    assert heavy <= allowed


def test_building_loads_neither_torch_nor_matplotlib_nor_pandas():
    layers = [LAYERS[name] for name in ("values", "pure functions", "files", "work")]
    lower = [f"leukemia_data.{module}" for modules in layers for module in sorted(modules)]
    code = f"import sys, {', '.join(lower)}; print(sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=python_environment(), capture_output=True, text=True, check=True
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert "cv2" in loaded
    assert not loaded & HEAVY
