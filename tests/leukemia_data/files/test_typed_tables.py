from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest

from leukemia_data.errors import UsageError
from leukemia_data.files.typed_tables import TableFault, at, locate, parse_table, parse_value, read_table, read_toml

Range = Annotated[tuple[float, float], "two numbers [low, high]"]


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    name: Literal["sgd", "adamw"] = "sgd"
    lr: float | None = None
    betas: tuple[float, float] | None = None
    nesterov: bool | None = None

    def __post_init__(self) -> None:
        if self.lr is not None and self.lr <= 0:
            raise UsageError(f"lr must be above 0, got {self.lr:g}")
        if self.name == "sgd" and self.betas is not None:
            raise UsageError(f"optimizer 'sgd' has no betas; {self.name} knows lr and nesterov")


@dataclass(frozen=True, kw_only=True)
class Stage:
    epochs: int
    recipe: str = "raw"
    optimizer: Optimizer = field(default_factory=Optimizer)
    milestones: tuple[int, ...] = ()
    factor: Range = (1.0, 1.0)
    mean: tuple[float, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    version: ClassVar[int] = 3
    model: str
    folds: int | None = None
    stage: tuple[Stage, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model == "resnet51":
            raise UsageError(f"unknown network {self.model!r}")


TEXT = """\
model = "resnet50"
folds = 3

[weights]
all = 2
hem = 0.5

[[stage]]
epochs = 5
factor = [0.9, 1]

[[stage]]
epochs = 10
milestones = [3, 7]
optimizer.name = "adamw"
optimizer.betas = [0.9, 0.99]
"""
PLAN = Plan(
    model="resnet50",
    folds=3,
    weights={"all": 2.0, "hem": 0.5},
    stage=(
        Stage(epochs=5, factor=(0.9, 1.0)),
        Stage(epochs=10, milestones=(3, 7), optimizer=Optimizer(name="adamw", betas=(0.9, 0.99))),
    ),
)


def read(tmp_path, text: str) -> Plan:
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    document = read_toml(path)
    return read_table(Plan, document.table, str(path), text=document.text)


# --- values -------------------------------------------------------------------------------------------------------


def test_a_document_becomes_nested_dataclasses(tmp_path):
    assert read(tmp_path, TEXT) == PLAN


def test_whole_numbers_of_floats_are_floats_and_lists_are_tuples(tmp_path):
    plan = read(tmp_path, TEXT)
    assert type(plan.weights["all"]) is type(plan.stage[0].factor[1]) is float
    assert type(plan.stage) is type(plan.stage[1].milestones) is tuple


def test_what_a_json_document_stored_is_read_too():
    assert parse_table(Plan, {"model": "a", "folds": None, "details": {"x": [1, None]}}) == Plan(
        model="a", details={"x": [1, None]}
    )


def test_parts_that_are_dataclasses_already_stay(tmp_path):
    stage = Stage(epochs=1)
    [kept] = parse_table(Plan, {"model": "a", "stage": (stage,)}).stage
    assert kept is stage


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (np.float32(0.5), float, 0.5),
        (np.int64(3), float, 3.0),
        (np.int64(3), int, 3),
        ([np.uint8(1), 2], tuple[float, float], (1.0, 2.0)),
        (-(2**63) + 1, int, -(2**63) + 1),
        ("adamw", Literal["sgd", "adamw"], "adamw"),
        (1, int | str, 1),
        ("auto", int | str, "auto"),
        ([[1, 2], [3]], tuple[tuple[int, ...], ...], ((1, 2), (3,))),
        ([], tuple[int, ...], ()),
        (None, float | None, None),
    ],
)
def test_values_as_programs_give_them(value, hint, expected):
    found = parse_value(value, hint, "x")
    assert found == expected
    assert type(found) is type(expected)


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "wrong", "line", "words"),
    [
        ("folds = 3", "fold = 3", 2, "unknown key 'fold' (did you mean 'folds'?); it takes model, folds, stage"),
        ("folds = 3", "x = 3", 2, "unknown key 'x'; it takes model"),
        ("folds = 3", "version = 3", 2, "unknown key 'version'"),
        ("folds = 3", "folds = true", 2, "folds must be a whole number, got True"),
        ("folds = 3", "folds = 3.0", 2, "folds must be a whole number, got 3.0"),
        ("folds = 3", "folds = 9223372036854775808", 2, "folds must be a whole number, got 9223372036854775808"),
        ("folds = 3", "folds = 1979-05-27", 2, "folds must be a whole number, got datetime.date(1979, 5, 27)"),
        ('model = "resnet50"', "model = 50", 1, "model must be a text, got 50"),
        ('model = "resnet50"', 'model = "resnet51"', 1, "unknown network 'resnet51'"),
        ("hem = 0.5", 'hem = "0.5"', 6, "hem must be a number, got '0.5'"),
        ("hem = 0.5", "hem = true", 6, "hem must be a number, got True"),
        ("hem = 0.5", "hem = nan", 6, "hem must be a number, got nan"),
        ("hem = 0.5", "hem = inf", 6, "hem must be a number, got inf"),
        ("hem = 0.5", f"hem = 1{'0' * 400}", 6, "hem must be a number, got 1000"),
        ("epochs = 5", "recipe = 'raw'", 8, "epochs is missing; it takes epochs, recipe"),
        ("factor = [0.9, 1]", "factor = 2", 10, "factor must be two numbers [low, high], got 2"),
        ("factor = [0.9, 1]", "factor = [1, 2, 3]", 10, "factor must be two numbers [low, high], got [1, 2, 3]"),
        ("factor = [0.9, 1]", "factor = [0, 'a']", 10, "factor must be a number, got 'a'"),
        ("factor = [0.9, 1]", "mean = [1, 2]", 10, "mean must be a list of 3 numbers, got [1, 2]"),
        ("factor = [0.9, 1]", "optimizer = 7", 10, "expected a table, got 7; it takes name, lr, betas, nesterov"),
        ("factor = [0.9, 1]", "optimizer.nesterov = 1", 10, "nesterov must be true or false, got 1"),
        ("factor = [0.9, 1]", "optimizer.lr = -1", 10, "lr must be above 0, got -1"),
        ("factor = [0.9, 1]", "optimizer = { lr = 1, betas = [0, 0] }", 10, "optimizer 'sgd' has no betas"),
        ("milestones = [3, 7]", "milestones = 3", 14, "milestones must be a list of whole numbers, got 3"),
        ("milestones = [3, 7]", "milestones = [3, 7.5]", 14, "milestones must be a whole number, got 7.5"),
        ('name = "adamw"', 'name = "adam"', 15, "name must be sgd or adamw (did you mean 'adamw'?), got 'adam'"),
        ('name = "adamw"', 'nam = "adamw"', 15, "unknown key 'nam' (did you mean 'name'?)"),
        ('name = "adamw"', 'name = "sgd"', 16, "'sgd' has no betas"),
    ],
)
def test_a_fault_is_named_by_its_line(tmp_path, right, wrong, line, words):
    assert right in TEXT
    with pytest.raises(UsageError) as caught:
        read(tmp_path, TEXT.replace(right, wrong, 1))
    assert str(caught.value).startswith(f"{tmp_path / 'plan.toml'}, line {line}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "stored: model is missing; it takes"),
        ({"model": "a", "folds": True}, "stored: folds must be a whole number"),
        ({"model": "a", "stage": [{"epochs": 1}, {}]}, "stored, stage 2: epochs is missing"),
        ({"model": "a", "stage": [{"epochs": 1}, 5]}, "stored, stage 2: expected a table, got 5"),
        ({"model": "a", "stage": {"epochs": 1}}, "stored: write each stage as a [[stage]] table"),
        ({"model": "a", "stage": 1}, "stored: stage must be a list of tables, got 1"),
        ({"model": "a", "stage": [{"epochs": 1, "optimizer": {"lr": 0}}]}, "stored, stage 1 [optimizer]: lr must be"),
        ({"model": "a", "weights": 3}, "stored [weights]: expected a table, got 3"),
        ({"model": "a", "weights": {"hem": None}}, "stored [weights]: hem must be a number, got None"),
        (["model"], "stored: expected a table, got ['model']; it takes model"),
    ],
)
def test_without_a_text_a_fault_is_named_by_its_table(table, words):
    with pytest.raises(UsageError) as caught:
        read_table(Plan, table, "stored")
    assert str(caught.value).startswith(words)


def test_all_that_is_missing_is_named():
    @dataclass
    class Pair:
        p: float
        kernel_px: int

    with pytest.raises(UsageError, match=r"^x\.toml \[blur\]: p, kernel_px are missing; it takes p, kernel_px$"):
        read_table(Pair, {}, "x.toml", keys=("blur",))


def test_a_table_deeper_in_the_document_is_named_from_the_root():
    text = "[[step]]\nepochs = 1\n[[step]]\nepochs = 'two'\n"
    with pytest.raises(UsageError, match=r"^r\.toml, step 2: epochs must be a whole number, got 'two'$"):
        read_table(Stage, {"epochs": "two"}, "r.toml", keys=("step", 1))
    with pytest.raises(UsageError, match=r"^r\.toml, line 4: epochs must be"):
        read_table(Stage, {"epochs": "two"}, "r.toml", text=text, keys=("step", 1))


def test_a_larger_reading_places_its_own_faults():
    text = "[a]\nstart = 1\n"
    with (
        pytest.raises(UsageError, match=r"^p\.toml, line 2: no such file$"),
        locate("p.toml", text),
        at("a"),
        at("start"),
    ):
        raise UsageError("no such file")


def test_a_fault_keeps_its_path():
    with pytest.raises(TableFault) as caught, at("stage", 0):
        parse_table(Stage, {"epochs": 1, "optimizer": {"lr": -1}})
    assert caught.value.keys == ("stage", 0, "optimizer", "lr")


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), locate("p.toml"), at("a"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        (True, float, "x must be a number, got True"),
        (float("inf"), float, "x must be a number, got inf"),
        (3.0, int, "x must be a whole number, got 3.0"),
        ((0.9, None), Range, "x must be a number, got None"),
        (1.2, Range, r"x must be two numbers \[low, high\]"),
        (None, int, "x must be a whole number, got None"),
        (1.5, int | str | None, "x must be a whole number or a text, got 1.5"),
        (1, Literal["1"], r"x must be 1 \(a text\), got 1"),
        ("grey", Literal["border", "black", "white"], "x must be border, black or white, got 'grey'"),
        ([3], tuple[Mapping[str, Any], ...], "expected a table, got 3"),
        ({"a": 1}, tuple[Mapping[str, Any], ...], r"write each x as a \[\[x\]\] table"),
        (True, Literal[1], "x must be 1, got True"),
        (1, tuple[str, ...], "x must be a list of texts"),
        ("ab", tuple[str, str], "x must be a list of 2 texts"),
        ([1], tuple[int, str], "x must be a list of 2 values"),
    ],
)
def test_what_programs_give_is_checked_as_a_file_is(value, hint, words):
    with pytest.raises(UsageError, match=f"^{words}"):
        parse_value(value, hint, "x")


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_byte_order_mark_and_the_ends_of_lines_are_no_part_of_a_document(tmp_path, mark, end):
    path = tmp_path / "plan.toml"
    path.write_bytes(mark + TEXT.encode().replace(b"\n", end))
    document = read_toml(path)
    assert parse_table(Plan, document.table) == PLAN
    assert document.text == TEXT


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"p = ", "not valid TOML"),
        ('name = "größe"'.encode("latin-1"), "not valid TOML"),
        (b"a = " + b"[" * 10_000, "nested too deeply"),
    ],
)
def test_the_error_of_invalid_toml_has_its_path(tmp_path, content, words):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"mine\.toml: .*{words}"):
        read_toml(path)


def test_an_unreadable_file_is_an_error_with_its_path(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.toml: cannot be read: No such file"):
        read_toml(tmp_path / "absent.toml")


def test_it_loads_no_library():
    code = "import sys, leukemia_data.files.typed_tables; print(sorted({'numpy', 'cv2', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
