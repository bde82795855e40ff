"""Options without effect on a source are refused or noted."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.errors import SourceError, UsageError
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import SourceListing, list_source


@pytest.fixture
def source(tmp_path: Path, write_tree) -> Path:
    paths = [f"{part}/{name}/{n}.png" for part in ("A", "B") for name in ("blast", "normal") for n in range(2)]
    root = write_tree(tmp_path / "cells", *paths)
    rows = [f"{path},{path.split('/')[1]}" for path in paths]
    (root / "cells.csv").write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    return root


def read(*paths: Path, allow_unmatched: bool = False, **options) -> SourceListing:
    return list_source(paths, options=ReadingOptions.parse(**options), allow_unmatched=allow_unmatched)


@pytest.mark.parametrize("role", ["label", "subject", "split", "path"])
def test_columns_where_no_source_is_a_table(source, role):
    option = {f"{role}_column": "foo"}
    with pytest.raises(UsageError, match=f"--{role}-column foo: no SOURCE is a table"):
        read(source, class_level=2, **option)
    assert len(read(source, class_level=2, allow_unmatched=True, **option).records) == 8
    assert len(read(source / "A", source / "cells.csv", label_column="label").records) == 8


@pytest.mark.parametrize("level", [2, -1, "name"])
def test_a_class_level_beside_a_column_of_labels(source, level):
    with pytest.raises(UsageError, match=r"column label.*--label-column none"):
        read(source / "cells.csv", class_level=level)
    assert read(source / "cells.csv", class_level=-1, label_column="none").classes == ("blast", "normal")


@pytest.mark.parametrize("name", ["cells.csv", ""])
def test_folders_of_splits_that_are_not_there(source, name):
    options = {} if name else {"class_level": 2}
    with pytest.raises(SourceError, match=r"no folder zz.*such as 'A/blast/0.png'"):
        read(source / name, split_folders="train=A,test=zz", **options)
    for text in ("train=a,test=/B/", "train=A/blast,test=B"):
        assert {split.name for split in read(source / name, split_folders=text, **options).reading.splits} >= {"train"}


@pytest.mark.parametrize("name", ["cells.csv", ""])
def test_patterns_that_exclude_nothing(source, name):
    options = {} if name else {"class_level": 2}
    notes = read(source / name, exclude=["B", "*.bmp"], **options).notes
    assert [note for note in notes if "--exclude" in note] == ["--exclude *.bmp excludes nothing"]
    for pattern in ("./A", "/A", "./A/*"):
        assert len(read(source / name, exclude=[pattern], **options).records) == 4
    assert "--exclude ./blast excludes nothing" in read(source / name, exclude=["./blast"], **options).notes


def test_patterns_that_name_what_is_passed_over_anyway(source):
    (source / "A" / ".hidden").touch()
    (source / "A" / "notes.txt").touch()
    heeded = [read(source, exclude=[".hidden", "notes.*"], class_level=2)]
    # Nothing below an excluded folder is read.
    heeded.append(read(source, exclude=["/A", "A/blast/0.png"], class_level=2))
    assert [len(listing.records) for listing in heeded] == [8, 4]
    assert not any("excludes nothing" in note for listing in heeded for note in listing.notes)


def test_patterns_and_several_sources(source):
    assert len(read(source / "A", source / "B", exclude=["A"], class_level=1).records) == 4


def test_the_source_itself_may_be_the_folder_of_a_split(source):
    """The option overrides the meaning of the name."""
    root = source.rename(source.parent / "train")
    for text, expected in (("train=train", "train"), ("valid=train", "valid"), ("test=train", "test")):
        reading = read(root / "A" / "..", split_folders=text, class_level=2).reading
        assert [split.name for split in reading.splits] == [expected]
    with pytest.raises(SourceError, match="no folder lab3"):
        read(root, split_folders="train=lab3", class_level=2)
    other = root.rename(root.parent / "lab3")
    assert [split.name for split in read(other, split_folders="test=lab3", class_level=2).reading.splits] == ["test"]
