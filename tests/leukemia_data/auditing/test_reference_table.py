from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.auditing.reference_index import read_reference_table, reference_classes
from leukemia_data.errors import SourceError, UsageError

SHA = "ab" * 32


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_columns_are_found_by_name_and_the_image_name_gives_the_rest(tmp_path):
    table = write(
        tmp_path / "names.csv",
        "SHA256,extra,path,Fold,part,bytes",
        f"{SHA},x,fold_2/hem/UID_h3_12_4_hem.bmp,fold_2,train,608454",
        f"{SHA},x,17.bmp,,final,",
    )
    named, unnamed = read_reference_table(table)
    assert (named.subject, named.photo, named.class_name) == ("H3", "H3/12", "hem")
    assert (named.split, named.fold, named.size_bytes, named.sha256) == ("train", 2, 608454, bytes.fromhex(SHA))
    assert (unnamed.subject, unnamed.photo, unnamed.class_name) == ("", "", "")
    assert (unnamed.split, unnamed.fold, unnamed.size_bytes) == ("test", -1, -1)


def test_own_columns_win_over_the_name(tmp_path):
    table = write(
        tmp_path / "n.csv",
        "uid_name,path,sha256,label,subject,photo,part",
        f"UID_57_29_1_all.bmp,1.bmp,{SHA.upper()},1,57,29,prelim",
        f",b/2.png,{SHA},blast,anna,7,",
    )
    first, second = read_reference_table(table)
    assert (first.name, first.class_name, first.photo, first.split) == ("1.bmp", "all", "57/29", "valid")
    assert (second.class_name, second.subject, second.photo) == ("blast", "anna", "anna/7")
    assert reference_classes([first]) == ("hem", "all")
    assert reference_classes([first, second]) == ("all", "blast")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["Path,label", "a,1"], "sha256"),
        ([f"sha256\n{SHA}"], "path"),
        (["path,sha256"], "no rows"),
        (["path,sha256", "a,12", f",{SHA}", f"b,{SHA}"], "line 2"),
        (["path,sha256", "a,12", f",{SHA}", f"b,{SHA}"], "path is empty: line 3"),
        (["path,sha256,fold", f"a,{SHA},first"], r"column fold is not a number.*line 2 \('first'\)"),
        (["path,sha256,part,bytes", f"a,{SHA},later,1", f"b,{SHA},train,1e5"], "2 problems: column part.*line 2"),
        (
            ["path,sha256,part,bytes", f"a,{SHA},later,1", f"b,{SHA},train,1e5"],
            "column bytes is not a number: line 3",
        ),
        (["path,sha256,labels", f"a,{SHA},1"], "column labels is not read: rename it to label"),
    ],
)
def test_wrong_tables(tmp_path, lines, words):
    with pytest.raises(SourceError, match=words):
        read_reference_table(write(tmp_path / "n.csv", *lines))


def test_no_such_table(tmp_path):
    with pytest.raises(UsageError, match=r"not found: .*names\.csv"):
        read_reference_table(tmp_path / "names.csv")
