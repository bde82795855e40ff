from __future__ import annotations

import csv
import io
import os
import random
import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import pytest

from .disk import remove_layout, tiny_png, write_layout
from .generate import generate_layout, layout_of_seed
from .layout import Layout
from .questions import KIND, QUESTIONS
from .tree import DEEP

NUM_LAYOUTS = 2_000
"""As many as ``make torture`` reads."""
CELL_NAME = re.compile(r"UID_(H?\d+)_\d+_\d+_(all|hem)\.(bmp|png)", re.IGNORECASE)
IMAGE_ENDS = (".png", ".jpg", ".bmp", ".tif", ".tiff")


@pytest.fixture(scope="module")
def layouts() -> list[Layout]:
    return [layout_of_seed(seed) for seed in range(NUM_LAYOUTS)]


def test_a_seed_always_stands_for_the_same_layout() -> None:
    assert [layout_of_seed(seed) for seed in range(40)] == [layout_of_seed(seed) for seed in range(40)]
    assert generate_layout(random.Random("layout 7"), 7) == layout_of_seed(7)
    assert len({layout_of_seed(seed).cells for seed in range(40)}) == 40


def test_every_answer_to_every_question_occurs(layouts: list[Layout]) -> None:
    seen = defaultdict[tuple[str, str], set[str]](set)
    for layout in layouts:
        for question, answer in layout.choices.items():
            seen[layout.kind, question].add(answer)
    expected = {(kind, question): set(a) for kind, asked in QUESTIONS.items() for question, a in asked.items()}
    assert {key: answers - seen[key] for key, answers in expected.items() if answers - seen[key]} == {}


def test_enough_layouts_have_one_sensible_reading(layouts: list[Layout]) -> None:
    """A reader that refuses everything would pass the others."""
    plain = Counter(layout.kind for layout in layouts if layout.is_plain)
    every = Counter(layout.kind for layout in layouts)
    assert set(every) == set(KIND)
    assert min(plain[kind] / every[kind] for kind in ("tree", "cnmc", "table")) > 0.15
    assert plain["flat"] == 0


def test_only_layouts_with_a_doubt_may_be_refused(layouts: list[Layout]) -> None:
    assert not [layout.seed for layout in layouts if layout.is_plain and layout.refusable_by]
    assert not [layout.seed for layout in layouts if layout.is_plain and layout.is_never_silent]


def test_each_layout_is_of_the_size_that_is_meant(layouts: list[Layout]) -> None:
    assert max(len(layout.cells) for layout in layouts) < 150
    for layout in layouts:
        per_class = Counter(cell.class_name for cell in layout.cells)
        assert len(per_class) >= 2 or layout.kind in ("flat", "table"), layout.described()
        assert len(per_class) <= 9, layout.described()


def test_the_truth_of_trees_stands_in_their_paths(layouts: list[Layout]) -> None:
    for layout in layouts:
        if layout.kind == "tree":
            for cell in layout.cells:
                assert path_says(layout, cell.path, cell.class_name), layout.described()
                assert cell.subject is None or cell.subject in cell.path
                assert (cell.split is None) == ("split words" not in layout.choices)


def test_options_name_the_level_of_the_classes_and_what_is_no_cell(layouts: list[Layout]) -> None:
    for layout in layouts:
        level = layout.options.get("class_level")
        for cell in layout.cells if isinstance(level, int) else ():
            source = next(source for source in layout.sources if cell.path.startswith(f"{source}/"))
            names = cell.path.removeprefix(f"{source}/").split("/")
            assert path_says(layout, f"/{names[level - 1]}/", cell.class_name) or cell.class_name is None
        excluded = layout.options.get("exclude", ())
        assert isinstance(excluded, tuple)
        assert all(any(path.endswith(f"/{name}") for path in layout.passed_over) for name in excluded)


def test_the_truth_of_published_names_is_what_they_say(layouts: list[Layout]) -> None:
    published = {"tcia", "kaggle", "prellberg", "hem and all", "flat", "splits", "agreeing folders"}
    seen = 0
    for layout in layouts:
        for cell in layout.cells if layout.choices.get("tree of names") in published else ():
            match = CELL_NAME.fullmatch(cell.path.rpartition("/")[2])
            if match:
                assert (cell.subject, cell.class_name) == (match[1], match[2].lower()), layout.described()
                seen += 1
    assert seen > 500


def test_no_subject_lies_on_both_sides_of_a_split(layouts: list[Layout]) -> None:
    for layout in layouts:
        sides = defaultdict[str, set[str | None]](set)
        for cell in layout.cells:
            if cell.subject and layout.choices.get("given") != "two tables" and "people" not in layout.choices:
                sides[cell.subject].add(cell.split)
        assert all(len(splits) == 1 for splits in sides.values()), layout.described()


def test_tables_say_the_truth(layouts: list[Layout]) -> None:
    seen = 0
    for layout in layouts:
        choices = layout.choices
        if layout.kind != "table" or choices["paths"] != "plain" or choices["labels"] != "names":
            continue
        if choices.get("unknown labels") != "none" or choices["folders of images"] == "names of cells":
            continue
        rows = [row for data in layout.files.values() for row in read_table(data, choices)]
        truth = {cell.path.removeprefix("given/"): cell.class_name for cell in layout.cells}
        assert {row[choices["path title"]]: row[choices["label title"]] for row in rows} == truth, layout.described()
        seen += 1
    assert seen > 50


def test_files_on_disk_are_those_of_the_layout(tmp_path: Path, layouts: list[Layout]) -> None:
    for layout in layouts[:60]:
        root = tmp_path / str(layout.seed)
        root.mkdir()
        write_layout(layout, root)
        for cell in layout.cells:
            assert (root / cell.path).is_file(), layout.described()
        assert all((root / source).exists() for source in layout.sources), layout.described()
        assert all((root / folder).is_dir() for folder in layout.empty_folders), layout.described()
        expected = {cell.path for cell in layout.cells} | set(layout.passed_over) | set(layout.files)
        assert len(expected) == len(layout.cells) + len(layout.passed_over) + len(layout.files)
        if not layout.links and layout.choices.get("wrappers") != "1,200":
            assert files_below(root) == expected, layout.described()
        remove_layout(root)
        assert not root.exists(), layout.described()


def test_links_lead_where_they_should_and_are_not_followed_when_removed(tmp_path: Path, layouts: list[Layout]) -> None:
    layout = next(layout for layout in layouts if layout.choices.get("links") == "to a folder elsewhere")
    folder = tmp_path / "layout"
    folder.mkdir()
    write_layout(layout, folder)
    (link,) = layout.links
    assert (folder / link).is_symlink()
    assert [p for p in (folder / "elsewhere/0001").iterdir() if p.suffix.lower() in IMAGE_ENDS]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.png").write_bytes(b"")
    (folder / "given/out").symlink_to(outside)
    remove_layout(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "kept.png").exists()


@pytest.mark.torture
def test_deep_folders_are_written_and_removed(tmp_path: Path, layouts: list[Layout]) -> None:
    layout = next(layout for layout in layouts if layout.choices.get("wrappers") == "1,200")
    assert layout.cells[0].path.count("/") > DEEP
    folder = tmp_path / "deep"
    folder.mkdir()
    write_layout(layout, folder)
    assert (folder / layout.cells[0].path).is_file()
    remove_layout(folder)
    assert not folder.exists()


def test_images_are_valid_and_no_two_are_alike(tmp_path: Path) -> None:
    for number in (0, 1, 0x123456):
        (tmp_path / "1.png").write_bytes(tiny_png(number))
        blue, green, red = cv2.imread(str(tmp_path / "1.png"))[0, 0]
        assert (int(red) << 16) + (int(green) << 8) + int(blue) == number


def path_says(layout: Layout, path: str, class_name: str | None) -> bool:
    """Whether a folder of the path has the class's name, in one of its spellings."""
    if class_name is None:
        return layout.choices.get("test part") == "without class folders"
    names = {unicodedata.normalize("NFC", name) for name in (class_name, *layout.aliases.get(class_name, ()))}
    return any(unicodedata.normalize("NFC", name) in names for name in path.split("/")[1:-1])


def read_table(data: bytes, choices: dict[str, str]) -> list[dict[str, str]]:
    encoding = {"utf-8": "utf-8-sig"}.get(choices["encoding"], choices["encoding"])
    # As the last of two tables was written; both may be told from their first line.
    text = next(t for t in (decoded(data, e) for e in (encoding, "utf-8-sig", "utf-16")) if t)
    separator = max(",;\t", key=text.splitlines()[0].count)
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator))


def decoded(data: bytes, encoding: str) -> str:
    if (encoding == "utf-16") != data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ""
    return data.decode(encoding)


def files_below(folder: Path) -> set[str]:
    found = set()
    pending = [str(folder)]
    for path in pending:
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            else:
                found.add(os.path.relpath(entry.path, folder))
    return found
