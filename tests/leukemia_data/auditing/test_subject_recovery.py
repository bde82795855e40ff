from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.auditing.audit_image import AuditImage
from leukemia_data.auditing.reference_index import KnownImage, LabTable, ReferenceIndex, linked_sets
from leukemia_data.auditing.subject_matching import FileMatch, Recovery, assign_subjects, match_files
from leukemia_data.files.csv_table import TableProblems
from leukemia_data.sources.source import list_images


def lab(*paths: str, labels: str = "", name: str = "train.csv") -> LabTable:
    rows = tuple(zip(paths, labels or "1" * len(paths), strict=True))
    return LabTable(Path(name), ",", ("Path", "label"), rows, tuple(range(2, len(rows) + 2)), TableProblems(name))


def match(key: str, *subjects: str, class_name: str = "all") -> FileMatch:
    known = tuple(KnownImage(f"{key}-{subject}", subject, class_name) for subject in subjects)
    return FileMatch(key.encode(), "bytes" if known else "unknown", known)


def recover(tables: list[LabTable], found: dict[str, FileMatch], linked=(), **options) -> Recovery:
    files = {(number, path): Path(path) for number, table in enumerate(tables) for path in table.image_paths}
    matches = {Path(path): match for path, match in found.items()}
    return assign_subjects(tables, files, matches, linked, **options)


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([{"1"}, {"2"}], []),
        ([{"20", "3"}, {"H1", "H2"}], [("3", "20"), ("H1", "H2")]),
        ([{"1", "2"}, {"3", "4"}, {"2", "3"}], [("1", "2", "3", "4")]),
        ([{"H10", "H3"}, {"H3", "H10"}], [("H3", "H10")]),
    ],
)
def test_linked_sets(sets, expected):
    assert linked_sets(sets) == expected


def test_files_are_found_by_bytes_else_by_pixels(tmp_path, rng, make_frame, write_image):
    frames = [make_frame(rng, 40, 40) for _ in range(4)]
    tree = tmp_path / "tree"
    write_image(tree / "all" / "UID_7_1_1_all.bmp", frames[0])
    write_image(tree / "hem" / "UID_H2_1_1_hem.bmp", frames[1])
    files = [tmp_path / name for name in ("0.png", "1.bmp", "2.bmp", "3.bmp", "4.png", "5.png")]
    for file, frame in zip(files, [frames[0], frames[1], frames[2], frames[3]], strict=False):
        write_image(file, frame)
    files[4].write_bytes(b"rubbish")
    digest = hashlib.sha256(files[2].read_bytes()).digest()
    row = AuditImage(name="x.bmp", sha256=digest, split="test")
    index = ReferenceIndex()
    index.add_table([row])
    assert index.add_files(list_images([tree]), num_threads=2) == []
    found = list(match_files(files, index, num_threads=2))
    expected = ["pixels", "pixels", "no subject", "unknown", "unusable", "unusable"]
    assert [one.status for one in found] == expected
    assert [one.candidates for one in found] == [("7",), ("H2",), (), (), (), ()]
    assert [image.class_name for one in found[:2] for image in one.known] == ["all", "hem"]
    assert "missing" in found[5].problem


def test_unusable_reference_images_are_reported(tmp_path):
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "UID_1_1_1_all.bmp").write_bytes(b"rubbish")
    (told,) = ReferenceIndex().add_files(list_images([tmp_path]))
    assert "UID_1_1_1_all.bmp" in told


def test_every_row_gets_its_subject_in_order():
    table = lab("a", "b", "c", labels="101")
    result = recover([table], {"a": match("k", "7"), "b": match("l"), "c": match("m", "H3", class_name="hem")})
    assert [row.subject for row in result.rows] == ["7", "", "H3"]
    assert [row.label_denied for row in result.rows] == ["", "", "hem"]
    assert [row.candidates_text for row in result.rows] == ["", "", ""]


def test_copies_of_an_ambiguous_image_get_the_candidates_in_turn():
    tables = [lab("a", "x"), lab("b", "a", name="valid.csv")]
    shared = match("k", "21", "20")
    found = {"a": shared, "b": shared, "x": match("l", "20")}
    result = recover(tables, found, [("20", "21")])
    assert [(row.path, row.subject) for row in result.rows] == [("a", "20"), ("x", "20"), ("b", "21"), ("a", "20")]
    assert [row.candidates_text for row in result.rows] == ["20|21", "", "20|21", "20|21"]
    assert result.untied == ()


def test_linked_subjects_without_two_copies_are_noted_or_joined():
    tables = [lab("a", "x", "y")]
    found = {"a": match("k", "20", "21"), "x": match("l", "20"), "y": match("m", "21")}
    assert recover(tables, found, [("20", "21")]).untied == (("20", "21"),)
    joined = recover(tables, found, [("20", "21")], join_linked=True)
    assert [row.subject for row in joined.rows] == ["20+21", "20+21", "20+21"]
    assert joined.untied == ()


def test_index_has_the_subjects_that_share_images():
    index = ReferenceIndex()
    for subject, content in [("20", b"a"), ("21", b"a"), ("H2", b"b"), ("H4", b"b"), ("H4", b"c"), ("H5", b"c")]:
        index.by_bytes[content].append(KnownImage("n", subject, ""))
    index.by_pixels[b"d"] += [KnownImage("n", "7", ""), KnownImage("n", "", "")]
    assert index.linked_subjects() == [("20", "21"), ("H2", "H4", "H5")]
    assert index.num_images == 8


def test_order_of_the_reference_does_not_matter():
    rng = np.random.default_rng(3)
    subjects = ["H10", "H3", "2"]
    chosen = set()
    for _ in range(4):
        shared = match("k", *rng.permutation(subjects).tolist())
        result = recover([lab("a", "b", "c", "d")], dict.fromkeys("abcd", shared))
        chosen.add(tuple(row.subject for row in result.rows))
    assert chosen == {("2", "H3", "H10", "2")}
