"""Imports run one way between packages and between rooms, without cycles; ARCHITECTURE.md fits the code.

The order of the rooms is in this file. A module may import from its own room and from those before it; a new
room is added here.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import leukemia_data

from .architecture_table import PAGE, modules_by_room, rooms_of_page, with_modules
from .leukemia_data.helpers import python_environment

ROOT = Path(leukemia_data.__file__).parents[1]
PACKAGES = ("leukemia_data", "leukemia_models", "cli")
ROOMS = {
    "leukemia_data": [
        "lazy_imports",
        "errors",
        "console",
        "registry",
        "files",
        "stores",
        "operations",
        "records",
        "sources",
        "decoding",
        "splitting",
        "scanning",
        "streams",
        "caches",
        "building",
        "augmenting",
        "auditing",
        "api",
    ],
    "leukemia_models": [
        "devices",
        "evaluation",
        "networks",
        "training",
        "reports",
        "runs",
        "comparing",
        "experiments",
        "api",
    ],
}
LAZY_TARGET = re.compile(r"(leukemia_data|leukemia_models)(\.\w+)+:\w+\Z")
HEAVY = {"torch", "torchvision", "matplotlib", "pandas", "sklearn", "scipy"}
MAY_LOAD = {
    "leukemia_data.lazy_imports": {"pandas", "torch"},
    "leukemia_data.scanning.preview": {"matplotlib"},
    "leukemia_data.auditing.audit_sheet": {"matplotlib"},
    "leukemia_data.streams": {"torch"},
    "leukemia_data.augmenting": {"torch"},
}
"""What of HEAVY a room or module of leukemia_data may import."""
NOT_FOR_BUILDING = (
    "streams",
    "augmenting",
    "auditing",
    "scanning.preview",
    "building.dask_engine",
    "building.ray_engine",
)
"""Rooms and modules that building a cache on one machine has no use for."""


LATE_IMPORTS = {
    "leukemia_data.api.audit": "each function what it needs, so that none waits for what another one loads",
    "leukemia_data.api.build": "each function what it needs, so that none waits for what another one loads",
    "leukemia_data.api.caches": "each function what it needs, so that none waits for what another one loads",
    "leukemia_data.api.arguments": "fsspec, which folders do not need, and tqdm, which a quiet call does not",
    "leukemia_data.caches.cache": "torch, which a reader of samples does not need",
    "leukemia_data.registry": "importlib.metadata takes as long as all else that a recipe needs",
    "leukemia_data.building.build_caches": "a build with nothing to do loads neither NumPy nor OpenCV",
    "leukemia_data.building.build_request": "object stores load fsspec, for which caches on disk have no use",
    "leukemia_data.building.listed_build": "object stores load fsspec, for which caches on disk have no use",
    "leukemia_data.sources.source_choice": "object stores load fsspec, and the generated sample OpenCV",
    "leukemia_data.caches.opening": "stores load fsspec and caches NumPy: not for a build with nothing to do",
    "leukemia_models.networks.registry": "torch, which names, descriptions and recorded costs do not need",
    "leukemia_models.training.optimizers": "torch, which settings do not need, and Ranger21's package",
    "leukemia_data.caches.verify": "object stores load fsspec, for which a cache on disk has no use",
    "leukemia_data.building.garbage": "object stores load fsspec, for which a cache on disk has no use",
    "leukemia_data.auditing.run_audit": "drawing loads matplotlib, for which an audit without files has no use",
}
"""Modules of the libraries that may import inside functions, and what that saves."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported_names(node: ast.AST, module: str) -> Iterator[str]:
    """Full names that an import statement or a registry's lazy entry may load: modules, and what is taken from them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and LAZY_TARGET.match(node.value):
        yield node.value.partition(":")[0]
    elif isinstance(node, ast.Import):
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


def room_of(module: str) -> str:
    return module.split(".")[1]


def top_levels(module: str) -> set[str]:
    return {name.split(".")[0] for name in IMPORTS[module]}


def test_all_modules_were_found():
    assert {f"leukemia_data.{name}" for name in ("caches.shard", "building.plan", "streams.dataset")} <= MODULES.keys()
    assert "leukemia_data.caches.manifest" in internal_imports("leukemia_data.caches.shard")
    assert internal_imports("leukemia_data.errors") == set()
    assert "leukemia_data.caches.zstd_codec" in internal_imports("leukemia_data.caches.codec")


def test_packages_import_downwards_only():
    for module in MODULES:
        allowed = PACKAGES[: PACKAGES.index(module.split(".")[0]) + 1]
        assert {name.split(".")[0] for name in internal_imports(module)} <= set(allowed), module
        assert not top_levels(module) & {"tests", "benchmarks"}, module


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_has_its_place(package):
    found = {room_of(module) for module in MODULES if module.startswith(f"{package}.")}
    assert found == set(ROOMS[package])


def test_rooms_import_downwards_only():
    for module in MODULES:
        package = module.split(".")[0]
        if package not in ROOMS or "." not in module:
            continue
        allowed = ROOMS[package][: ROOMS[package].index(room_of(module)) + 1]
        imported = [name for name in internal_imports(module) if name.startswith(f"{package}.")]
        assert [name for name in imported if room_of(name) not in allowed] == [], module


@pytest.mark.parametrize("package", PACKAGES)
def test_no_cycles_not_even_through_imports_inside_functions(package):
    graph = {module: internal_imports(module) for module in MODULES if module.split(".")[0] == package}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_imports_stand_at_the_top_of_the_module():
    for module, path in MODULES.items():
        if module.startswith("cli") or module in LATE_IMPORTS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [
            node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        ]
        inside = {
            node.lineno
            for function in functions
            for node in ast.walk(function)
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert inside == set(), module


def test_torch_and_matplotlib_are_imported_by_their_rooms_only():
    for module in MODULES:
        if module.startswith("leukemia_data."):
            allowed = MAY_LOAD.get(module, set()) | MAY_LOAD.get(f"leukemia_data.{room_of(module)}", set())
            assert top_levels(module) & HEAVY <= allowed, module


def loaded_by(modules: list[str]) -> set[str]:
    """Top-level names of everything that is loaded when these modules have been imported."""
    code = f"import sys, {', '.join(modules)}; print(sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=python_environment(), capture_output=True, text=True, check=True
    )
    return set(ast.literal_eval(done.stdout))


def test_a_training_begins_without_the_libraries_of_its_evaluation():
    loaded = loaded_by(["cli.ltrain.train", "leukemia_models.runs.train_plan"])
    assert "torch" in loaded
    assert not loaded & (HEAVY - {"torch"})


def test_building_loads_neither_torch_nor_matplotlib_nor_pandas():
    lower = [
        module
        for module in MODULES
        if module.startswith("leukemia_data.")
        and not module.removeprefix("leukemia_data.").startswith(NOT_FOR_BUILDING)
    ]
    loaded = loaded_by(lower)
    assert "cv2" in loaded
    assert not loaded & HEAVY


LIBRARIES_OF_THE_WORK = {
    "numpy",
    "torch",
    "h5py",
    "cv2",
    "pandas",
    "joblib",
    "fsspec",
    "matplotlib",
    "scipy",
    "sklearn",
}
STILL_AT_WORK: set[str] = set()
"""Modules of cli that still import a library of the work; each is to lose it, and its row here."""


def test_the_command_line_reads_arguments_and_prints_and_leaves_the_work_to_the_libraries():
    """Imports of such libraries at the top or inside a function."""
    found = {module for module in MODULES if module.startswith("cli") and top_levels(module) & LIBRARIES_OF_THE_WORK}
    assert found == STILL_AT_WORK


# --- ARCHITECTURE.md ------------------------------------------------------------------------------------------------

TEXT = PAGE.read_text(encoding="utf-8")
_NAME = re.compile(r"[A-Za-z_]\w*\Z")
_MODULE = re.compile(r"\w+(/\w+)+\Z")


def chapter(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_module_stands_in_the_table_once():
    assert with_modules(TEXT, modules_by_room()) == TEXT, "write the table anew: python tests/architecture_table.py"
    rooms = rooms_of_page(TEXT)
    assert sorted(rooms) == sorted(modules_by_room())
    for package, order in ROOMS.items():
        named = [room.split("/")[1] for room in rooms if room.startswith(f"{package}/") and room != f"{package}/"]
        assert named == [room for room in order if f"{package}.{room}" in MODULES and (ROOT / package / room).is_dir()]


def test_the_table_names_what_is_there():
    page = "| `cli/` | shared | `old` |\n| `cli/ldata/` | commands | |\n"
    written = with_modules(page, {"cli/": ["console", "output"]})
    assert written == "| `cli/` | shared | `console`, `output` |\n| `cli/ldata/` | commands |  |\n"
    assert rooms_of_page(page) == ["cli/", "cli/ldata/"]


def test_what_the_page_names_exists():
    code = "\n".join(path.read_text(encoding="utf-8") for path in MODULES.values())
    identifiers = set(re.findall(r"\w+", code)) | {module.rpartition(".")[2] for module in MODULES}
    places = {module.replace(".", "/") for module in MODULES}
    places |= {place.partition("/")[2] for place in places}
    named = set(re.findall(r"`([^`\n]+)`", TEXT))
    missing = {name for name in named if _NAME.match(name) and name not in identifiers}
    missing |= {name for name in named if _MODULE.match(name) and name not in places and not (ROOT / name).exists()}
    missing |= {
        name
        for name in named
        if re.fullmatch(r"(\w+/)+(\w+\.\w+)?", name)
        and not any((ROOT / package / name).exists() for package in (".", *PACKAGES))
    }
    assert missing == set()


def test_each_decision_has_a_heading_of_its_own():
    lines = [line for line in chapter("Decisions").splitlines() if line.startswith("- ")]
    headings = [found[1].rstrip(".:").casefold() for line in lines if (found := re.match(r"- \*\*(.+?)\*\*", line))]
    assert len(headings) == len(lines) > 40
    assert sorted(set(headings)) == sorted(headings)


def test_every_registry_has_its_row_and_a_toy_in_the_tests():
    pattern = re.compile(r"^([A-Z_]+): Registry\[.+\] = Registry\(", re.MULTILINE)
    registries = {
        name for module, path in MODULES.items() for name in pattern.findall(path.read_text(encoding="utf-8"))
    }
    assert {"OPERATIONS", "ENGINES", "SOURCE_KINDS", "NETWORKS"} <= registries
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name in registries:
        assert f"`{name}`" in chapter("Where to add what"), name
        assert f"{name}.temporarily(" in tests, name


def test_pages_of_the_table_exist():
    rows = [line for line in chapter("Where to add what").splitlines() if line.startswith("| ")][1:]
    pages = {page for row in rows for page in re.findall(r"[\w-]+\.md", row.rsplit("|", 2)[1])}
    assert pages
    assert [page for page in pages if not (ROOT / "docs" / page).is_file()] == []


def test_modules_that_moved_are_where_the_table_says():
    rows = re.findall(r"^\| (`.+`) \| `([\w.]+)` \|$", (ROOT / "docs" / "moved.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) > 50
    assert [new for _, new in rows if new not in MODULES] == []
    assert [old for row, _ in rows for old in re.findall(r"`([\w.]+)`", row) if old in MODULES] == []
