"""Names that are markup, formulas or commands elsewhere: shown literally in tables and pages, and read back."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leukemia_data.files.text import printable
from leukemia_models.comparing.compared_run import read_compared_runs
from leukemia_models.comparing.comparison import compare, comparison_table, comparison_text
from leukemia_models.comparing.fold_evaluation import CrossValidation, cross_validate, read_fold
from leukemia_models.comparing.fold_report import cross_validation_text, folds_table
from leukemia_models.evaluation.predictions import read_predictions, write_table
from leukemia_models.evaluation.resampling import BootstrapSettings
from leukemia_models.reports.evaluation_figures import draw_confusion
from leukemia_models.reports.results import Results, write_results
from leukemia_models.reports.style import code, markdown_table, plain, save_figure
from leukemia_models.reports.summary_page import EvaluatedNetwork, results_of_table, summary_text
from leukemia_models.runs.run_config import load_config, save_config
from leukemia_models.runs.run_folder import RunFolder

from ..evaluated import make_predictions, make_split
from ..finished_runs import random_predictions, write_fold, write_run

markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py renders the pages")

NAMES = (
    "=cmd()|calc!A1", "+1", "-1", "@SUM(A1)", "'quoted'", "'=1", "\t=1", "\r=1", "<script>alert(1)</script>", "<b>bold",
    "a|b", "a\\|b", "`code`", "``", "`", " ", "a`b`", "**bold**", "_low_", "~~gone~~", "[text](http://x.org)",
    "![image](x.png)", "[x][y]", "&lt;&#60;", "back\\slash", "end\\", "two\nlines", "a\r\nb", "return\rfeed",
    "\x1b[31mred\x1b[0m", "nul\0", "caf\udce9", "gnp.\u202eexe", "$\\frac{", "a,b;c", '"', "# title", "> quote",
    "- item", "1. item", "|---|", "\ufeff", "C:\\dir\\file", "report_a_b",
)  # fmt: skip
CLASSES = ("<script>`|$x", "=cmd()`\n|\\")
DRAWS = BootstrapSettings(num_draws=100)


def shown(name: str) -> str:
    return printable(name.replace("\n", " ").replace("\t", " "))


def parsed(page: str) -> list[Any]:
    return markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(page)


def inline_of(tokens: list[Any]) -> Iterator[Any]:
    for token in tokens:
        yield token
        yield from inline_of(token.children or [])


def cells_of(page: str) -> list[list[str]]:
    """Text of each cell of all tables, row by row, as a reader sees it."""
    rows: list[list[str]] = []
    tokens = parsed(page)
    for token, inside in pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        if token.type in ("th_open", "td_open"):
            rows[-1].append("".join(child.content for child in inside.children or []))
    return rows


def assert_tame(page: str) -> None:
    """No HTML, link, picture or other markup came of a name, and no name tore a table."""
    page.encode("utf-8")
    assert page == printable(page)
    found = {token.type for token in inline_of(parsed(page))}
    assert not found & {"html_inline", "html_block", "image", "s_open", "em_open", "fence", "code_block", "hr"}


@pytest.mark.parametrize("name", NAMES)
def test_cells_show_names_as_they_are(name: str) -> None:
    page = markdown_table(
        ("code", "plain", "end"), [(code(name), plain(name), "end"), ("1", plain(f"x {name} y"), "2")]
    )
    header, *rows = cells_of(page)
    assert [len(row) for row in (header, *rows)] == [3, 3, 3]
    # Markdown takes blanks from the ends of a cell.
    assert rows[0][0].strip() == shown(name).strip()
    assert rows[0][1].strip() == shown(name).strip()
    assert rows[1][1] == f"x {shown(name)} y"
    assert_tame(page)


def hostile_table() -> pd.DataFrame:
    table = make_predictions(len(NAMES), num_cells=2)
    names = [f"{NAMES[number // 2 % len(NAMES)]}{number // 2 // len(NAMES) or ''}" for number in range(len(table))]
    ids = pd.Series([f"{name}{number % 2 or ''}" for number, name in enumerate(names)], dtype=object)
    return of_hostile_classes(table.assign(id=ids, subject=pd.Series(names, dtype=object)))


def of_hostile_classes(table: pd.DataFrame) -> pd.DataFrame:
    name_of = {"": "", "hem": CLASSES[0], "all": CLASSES[1]}
    named = {column: table[column].map(name_of).astype(object) for column in ("label", "prediction")}
    return table.assign(**named).rename(
        columns={f"probability_{old}": f"probability_{new}" for old, new in name_of.items()}
    )


@pytest.fixture(scope="module")
def results() -> Results:
    network = EvaluatedNetwork(
        model_name="<b>*net*</b>|",
        classes=CLASSES,
        settings={name: name for name in NAMES} | {"lr": 0.1},
        epoch=3,
        judging={"tta": "<i>", "checkpoint": "a|b"},
        notes=("<script>note</script>",),
        warnings=("a [link](x) of <warning>",),
    )
    split = replace(make_split(len(NAMES), 2), kind="leave-out:`<a>`")
    return results_of_table(hostile_table(), split, network, bootstrap=DRAWS)


def test_the_page_of_a_part_shows_names_as_they_are(results: Results) -> None:
    page = summary_text(replace(results, subjects=None))
    assert_tame(page)
    settings = [row for row in cells_of(page) if row[0] == row[-1] and len(row) == 2]
    assert {shown(name).strip() for name in NAMES} <= {row[0].strip() for row in settings} | {""}


def test_the_list_of_subjects_shows_names_as_they_are(results: Results) -> None:
    few = hostile_table().iloc[: 2 * 70]
    network = EvaluatedNetwork(model_name="net", classes=CLASSES, settings={})
    page = summary_text(results_of_table(few, make_split(35, 2), network, bootstrap=DRAWS))
    assert_tame(page)
    listed = [row[0].strip() for row in cells_of(page) if len(row) == 6]
    assert {shown(subject).strip() for subject in few["subject"]} <= set(listed)


def test_predictions_are_protected_and_read_back_exactly(results: Results, tmp_path: Path) -> None:
    table = hostile_table()
    write_table(tmp_path / "predictions.csv", table)
    again = read_predictions(tmp_path / "predictions.csv", CLASSES)
    assert again["id"].tolist() == table["id"].tolist()
    assert again["subject"].tolist() == table["subject"].tolist()
    assert again["label"].tolist() == table["label"].tolist()
    with (tmp_path / "predictions.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "\r"))] == []
    assert [cell for cell in cells if cell.startswith("-") and not cell[1:].replace(".", "").isdigit()] == []


def test_every_text_of_any_table_is_protected_also_beside_missing_values(tmp_path: Path) -> None:
    frame = pd.DataFrame({"setting_a": pd.Series(["=cmd()", None, 3], dtype=object), "value": [1.5, -2.5, 0.0]})
    write_table(tmp_path / "table.csv", frame)
    assert (tmp_path / "table.csv").read_text(encoding="utf-8") == "setting_a,value\n'=cmd(),1.5\n,-2.5\n3,0\n"


def test_results_are_json_whatever_the_names(results: Results, tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", results)
    content = json.loads((tmp_path / "results.json").read_text(encoding="ascii"))
    assert content["classes"] == list(CLASSES)
    assert [row["subject"] for row in content["subjects"]["subjects"]] == results.subjects.table["subject"].tolist()


def test_figures_draw_names_as_they_are(tmp_path: Path) -> None:
    figure = draw_confusion(((1, 2), (3, 4)), ("$\\frac{", "\x1b[31m\0caf\udce9"), title="$x", stamp="$")
    save_figure(figure, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.pdf").is_file()


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> CrossValidation:
    root = tmp_path_factory.mktemp("kfold")
    people = {"<b>1</b>|": 1, "=2": 1, "`H1`": 0, "\r\n|H2": 0}
    held_out = (dict(list(people.items())[::2]), dict(list(people.items())[1::2]))
    for number, part in enumerate(held_out, 1):
        table = of_hostile_classes(random_predictions(part, 3, number))
        write_fold(root / f"fold-{number}", table, people, 3, split=f"test-fold:{number}/2")
        path = root / f"fold-{number}" / "test" / "results.json"
        content = json.loads(path.read_text()) | {"classes": CLASSES, "model_name": "<i>"}
        path.write_text(json.dumps(content))
    return cross_validate([read_fold(root / f"fold-{number}") for number in (1, 2)], DRAWS)


def test_pages_and_tables_of_folds_show_names_as_they_are(folds: CrossValidation, tmp_path: Path) -> None:
    assert_tame(cross_validation_text(folds))
    widths = {len(row) for row in cells_of(cross_validation_text(folds)) if row[0].startswith("fold-")}
    assert widths == {13}
    write_table(tmp_path / "folds.csv", folds_table(folds))
    with (tmp_path / "folds.csv").open(encoding="utf-8", newline="") as file:
        assert [row["fold"] for row in csv.DictReader(file)] == ["fold-1", "fold-2"]


def test_pages_and_tables_of_comparisons_show_names_as_they_are(tmp_path: Path) -> None:
    people = {"1": 1, "2": 1, "H1": 0, "H2": 0}
    roots = tmp_path / "a<b>|`x`", tmp_path / "=b*c*"
    for seed, root in enumerate(roots):
        write_run(root, random_predictions(people, 3, seed))
        config = load_config(RunFolder(root))
        save_config(
            RunFolder(root), replace(config, model_name="<i>net|", start=NAMES[seed], cache_dir="<u>|", sampling="`*`")
        )
    runs = read_compared_runs(roots)
    comparison = compare(runs, DRAWS)
    page = comparison_text(comparison)
    assert_tame(page)
    assert {len(row) for row in cells_of(page) if row[0] in ("folder", "split", "network")} == {3}
    write_table(tmp_path / "comparison.csv", comparison_table(comparison))
    with (tmp_path / "comparison.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["setting_start"] for row in rows] == ["'=cmd()|calc!A1", "'+1"]
    assert [row["run"] for row in rows] == ["a<b>|`x`", "'=b*c*"]
