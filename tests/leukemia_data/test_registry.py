from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import pytest

from leukemia_data.errors import UsageError
from leukemia_data.registry import Registry, did_you_mean


@dataclass(frozen=True)
class Kind:
    name: str


@pytest.fixture
def kinds() -> Registry[Kind]:
    registry: Registry[Kind] = Registry("optimizer")
    for name in ("sgd", "adamw", "ranger21"):
        registry.register(Kind(name))
    return registry


def test_things_are_found_by_name_in_the_order_they_came(kinds):
    assert kinds.get("adamw") == Kind("adamw")
    assert kinds.names() == tuple(kinds) == ("sgd", "adamw", "ranger21")
    assert len(kinds) == 3
    assert "sgd" in kinds
    assert "SGD" not in kinds


def test_registering_returns_the_thing_so_that_it_decorates():
    operations: Registry[type] = Registry("operation", name_attribute="op")

    @operations.register
    class Clahe:
        op: ClassVar[str] = "clahe"

    assert operations.get("clahe") is Clahe


def test_a_class_that_is_defined_anew_takes_the_place_of_the_earlier_one():
    operations: Registry[type] = Registry("operation", name_attribute="op")

    def define() -> type:
        class Clahe:
            op: ClassVar[str] = "clahe"

        return operations.register(Clahe)

    first = define()
    second = define()
    assert operations.get("clahe") is second is not first

    class Other:
        op: ClassVar[str] = "clahe"

    with pytest.raises(UsageError, match="operation 'clahe' is there already"):
        operations.register(Other)


def test_a_name_may_be_given():
    networks: Registry[Callable[[int], int]] = Registry("model")
    assert networks.register(abs, name="magnitude") is abs
    assert networks.get("magnitude")(-3) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adam", r"^unknown optimizer 'adam' \(did you mean 'adamw'\?\); known are sgd, adamw, ranger21$"),
        ("SGD", r"did you mean 'sgd'\?"),
        ("lion", r"^unknown optimizer 'lion'; known are sgd, adamw, ranger21$"),
        (3, r"^unknown optimizer 3; known are"),
        ([], r"^unknown optimizer \[\]; known are"),
    ],
)
def test_an_unknown_name_is_a_mistake_of_usage(kinds, name, words):
    with pytest.raises(UsageError, match=words):
        kinds.get(name)


def test_an_empty_registry_has_no_names():
    with pytest.raises(UsageError, match="unknown codec 'raw'; known are none"):
        Registry[Kind]("codec").get("raw")


def test_a_name_belongs_to_one_thing(kinds):
    sgd = kinds.get("sgd")
    assert kinds.register(sgd) is sgd
    with pytest.raises(UsageError, match="optimizer 'sgd' is there already"):
        kinds.register(Kind("sgd"))
    with pytest.raises(UsageError, match="'sgd' is there already"):
        kinds.lazy("sgd", "fractions:Fraction")
    assert kinds.get("sgd") is sgd


def test_a_lazy_name_is_imported_on_first_use():
    code = """
import sys
from leukemia_data.registry import Registry
things = Registry("thing")
things.lazy("slow", "wave:Wave_read")
print(things.names(), "slow" in things, "wave" in sys.modules)
print(things.get("slow").__name__, "wave" in sys.modules)
"""
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == ["('slow',) True False", "Wave_read True"]


def test_a_lazy_thing_keeps_its_place_and_its_name(kinds):
    kinds.lazy("lazy", "fractions:Fraction")
    kinds.lazy("lazy", "fractions:Fraction")
    kinds.register(Kind("last"))
    assert kinds.get("lazy") is kinds.get("lazy") is Fraction
    assert kinds.names()[-2:] == ("lazy", "last")
    with pytest.raises(UsageError, match="'lazy' is there already"):
        kinds.register(Kind("lazy"))


def test_a_library_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    (tmp_path / "needs_much.py").write_text("import no_such_library_at_all\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    engines: Registry[Any] = Registry("engine")
    engines.lazy("dask", "needs_much:ENGINE", extra="dask")
    with pytest.raises(UsageError, match=r"engine 'dask' needs the library no_such_library_at_all.*\.\[dask\]"):
        engines.get("dask")


@pytest.mark.parametrize(("target", "extra"), [("leukemia_data.nothing:X", "dask"), ("no_such_library:X", None)])
def test_a_module_that_is_not_there_is_no_mistake_of_a_user(target, extra):
    engines: Registry[Any] = Registry("engine")
    engines.lazy("wrong", target, extra=extra)
    with pytest.raises(ModuleNotFoundError):
        engines.get("wrong")


def test_threads_get_one_and_the_same_lazy_thing(kinds):
    kinds.lazy("lazy", "fractions:Fraction")
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: kinds.get("lazy"), range(64))) == {Fraction}


def test_a_thing_may_be_there_for_a_while(kinds):
    with kinds.temporarily("lion", Kind("lion")) as lion:
        assert kinds.get("lion") is lion
    assert "lion" not in kinds


def test_a_thing_that_is_covered_for_a_while_comes_back(kinds):
    sgd, mine = kinds.get("sgd"), Kind("mine")
    with kinds.temporarily("sgd", mine):
        assert kinds.get("sgd") is mine
    assert kinds.get("sgd") is sgd
    with pytest.raises(ZeroDivisionError), kinds.temporarily("sgd", mine):
        raise ZeroDivisionError
    assert kinds.get("sgd") is sgd
    assert kinds.names() == ("sgd", "adamw", "ranger21")


def test_registries_have_nothing_in_common(kinds):
    assert Registry[Kind]("optimizer").names() == ()
    assert repr(kinds) == "<Registry of optimizer: sgd, adamw, ranger21>"


@pytest.mark.parametrize(
    ("name", "known", "words"),
    [
        ("epocs", ["name", "epochs"], " (did you mean 'epochs'?)"),
        ("CLAHE", ["clahe_lab", "clahe"], " (did you mean 'clahe'?)"),
        ("x", ["epochs"], ""),
        (7, ["epochs"], ""),
        ("x", [], ""),
    ],
)
def test_did_you_mean(name, known, words):
    assert did_you_mean(name, known) == words


def test_it_loads_no_library():
    code = "import sys, leukemia_data.registry; print(sorted({'numpy', 'cv2', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
