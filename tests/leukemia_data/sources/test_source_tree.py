from __future__ import annotations

import os
from pathlib import Path

import pytest

from leukemia_data.errors import SourceError
from leukemia_data.records.record import FoundImage
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.tree import describe_file, read_trees
from leukemia_data.sources.tree_images import Tree

HEADER = "Patient_ID,new_names,labels"


def walk_tree_images(root: Path, *, need_classes: bool = True) -> tuple[list[FoundImage], list[str]]:
    """Images below a folder, and what is said of them."""
    part = read_trees([Tree(root)], ReadingOptions(), need_classes=need_classes)
    passed_over = [
        f"passed over {count} {reason}: {', '.join(part.passed_over.examples[reason])}"
        for reason, count in part.passed_over.counts.items()
    ]
    return part.images, [*part.notes, *passed_over, *part.other_folders]


def walk(root: Path) -> dict[str, tuple[str | None, str, str, int]]:
    """Class, subject, split and fold of each image by its id."""
    found, _ = walk_tree_images(root)
    assert len({image.record_id for image in found}) == len(found)
    return {image.record_id: meaning(image) for image in found}


def meaning(image: FoundImage) -> tuple[str | None, str, str, int]:
    return image.class_name, image.subject, image.split, image.fold


def write_csv(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\r\n".join(lines) + "\r\n").encode(encoding))
    return path


# --- C-NMC ----------------------------------------------------------------------------------------------------


TCIA = "PKG - C-NMC 2019/"
TRAINING = [
    "C-NMC_training_data/fold_0/all/UID_1_1_1_all.bmp",
    "C-NMC_training_data/fold_0/hem/UID_H1_1_1_hem.bmp",
    "C-NMC_training_data/fold_1/all/UID_2_3_4_all.bmp",
    "C-NMC_training_data/fold_2/hem/UID_h3_1_1_hem.BMP",
]
TRAINING_MEANINGS = [("all", "1", "train", 0), ("hem", "H1", "train", 0), ("all", "2", "train", 1)]
TRAINING_MEANINGS.append(("hem", "H3", "train", 2))
LABELS = (HEADER, "UID_57_29_1_all.bmp,1.bmp,1", "UID_H25_3_2_hem.bmp,2.bmp,0")


@pytest.mark.parametrize("place", ["beside", "inside"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tcia(tmp_path, write_tree, place, encoding):
    preliminary, final = f"{TCIA}C-NMC_test_prelim_phase_data", f"{TCIA}C-NMC_test_final_phase_data"
    training = [TCIA + path for path in TRAINING]
    write_tree(tmp_path, *training, *(f"{preliminary}/{n}.bmp" for n in (1, 2, 3)), f"{final}/1.bmp")
    folder = tmp_path / TCIA if place == "beside" else tmp_path / preliminary
    write_csv(folder / "C-NMC_test_prelim_phase_data_labels.csv", *LABELS, encoding=encoding)
    assert walk(tmp_path) == dict(zip(training, TRAINING_MEANINGS, strict=True)) | {
        f"{preliminary}/1.bmp": ("all", "57", "valid", -1),
        f"{preliminary}/2.bmp": ("hem", "H25", "valid", -1),
        f"{preliminary}/3.bmp": (None, "", "valid", -1),
        f"{final}/1.bmp": (None, "", "test", -1),
    }
    _, notes = walk_tree_images(tmp_path)
    assert len(notes) == 1
    assert notes[0].startswith("1 preliminary test images have no row")


def test_kaggle(tmp_path, write_tree):
    top = "C-NMC_Leukemia"
    training = [f"{top}/training_data/{path.split('/', 1)[1]}" for path in TRAINING]
    preliminary = f"{top}/validation_data/C-NMC_test_prelim_phase_data"
    final = f"{top}/testing_data/C-NMC_test_final_phase_data"
    write_tree(tmp_path, *training, f"{preliminary}/1.bmp", f"{preliminary}/2.bmp", f"{final}/1.bmp")
    write_csv(tmp_path / top / "validation_data" / "C-NMC_test_prelim_phase_data_labels.csv", *LABELS)
    assert walk(tmp_path) == dict(zip(training, TRAINING_MEANINGS, strict=True)) | {
        f"{preliminary}/1.bmp": ("all", "57", "valid", -1),
        f"{preliminary}/2.bmp": ("hem", "H25", "valid", -1),
        f"{final}/1.bmp": (None, "", "test", -1),
    }


def test_kaggle_2(tmp_path, write_tree):
    training = [f"C-NMC 2019 (PKG)/{path}" for path in TRAINING]
    write_tree(tmp_path, *training)
    assert walk(tmp_path) == dict(zip(training, TRAINING_MEANINGS, strict=True))


def test_prellberg(tmp_path, write_tree):
    write_tree(
        tmp_path,
        "fold_0/all/UID_1_1_1_all.bmp",
        "fold_2/hem/UID_H1_1_1_hem.bmp",
        "phase2/1.bmp",
        "phase2/2.bmp",
        "phase3/1.bmp",
    )
    write_csv(tmp_path / "phase2.csv", *LABELS)
    assert walk(tmp_path) == {
        "fold_0/all/UID_1_1_1_all.bmp": ("all", "1", "train", 0),
        "fold_2/hem/UID_H1_1_1_hem.bmp": ("hem", "H1", "train", 2),
        "phase2/1.bmp": ("all", "57", "valid", -1),
        "phase2/2.bmp": ("hem", "H25", "valid", -1),
        "phase3/1.bmp": (None, "", "test", -1),
    }


def test_merged_copies_are_passed_over(tmp_path, write_tree):
    merged = [f"C-NMC_train_merged/{path.split('/', 2)[2]}" for path in TRAINING]
    write_tree(tmp_path, *TRAINING, *merged, "C-NMC_train_merged/all/UID_9_1_1_all.bmp")
    expected = dict(zip(TRAINING, TRAINING_MEANINGS, strict=True))
    assert walk(tmp_path) == expected | {"C-NMC_train_merged/all/UID_9_1_1_all.bmp": ("all", "9", "train", -1)}
    _, notes = walk_tree_images(tmp_path)
    assert any("4 copies" in note for note in notes)


def test_a_merged_folder_alone_is_read(tmp_path, write_tree):
    write_tree(tmp_path, "C-NMC_train_merged/all/UID_9_1_1_all.bmp", "C-NMC_train_merged/hem/UID_H9_1_1_hem.bmp")
    assert len(walk(tmp_path)) == 2


def test_one_fold_by_itself(tmp_path, write_tree):
    write_tree(tmp_path, "all/UID_1_1_1_all.bmp", "hem/UID_H1_1_1_hem.bmp")
    assert walk(tmp_path) == {
        "all/UID_1_1_1_all.bmp": ("all", "1", "", -1),
        "hem/UID_H1_1_1_hem.bmp": ("hem", "H1", "", -1),
    }


def test_named_images_without_any_folder(tmp_path, write_tree):
    write_tree(tmp_path, "UID_1_1_1_all.bmp", "UID_H1_1_1_hem.png")
    assert walk(tmp_path)["UID_H1_1_1_hem.png"] == ("hem", "H1", "", -1)


def test_named_images_in_a_preliminary_folder_have_their_own_labels(tmp_path, write_tree):
    write_tree(tmp_path, "C-NMC_test_prelim_phase_data/UID_57_29_1_all.bmp", *TRAINING)
    assert walk(tmp_path)["C-NMC_test_prelim_phase_data/UID_57_29_1_all.bmp"] == ("all", "57", "valid", -1)


def test_the_generated_sample(sample_tree):
    found = walk(sample_tree)
    assert len(found) == 32
    assert {subject for _, subject, _, _ in found.values()} == {"1", "2", "3", "4", "5", "H1", "H2", "H3"}
    assert {fold for *_, fold in found.values()} == {0, 1, 2}
    assert {split for _, _, split, _ in found.values()} == {"train"}


# --- label tables ---------------------------------------------------------------------------------------------


PRELIMINARY = "C-NMC_test_prelim_phase_data"


@pytest.mark.parametrize(
    "row",
    [
        "UID_57_29_1_all.bmp,1.bmp,0",
        "UID_H57_29_1_hem.bmp,1.bmp,1",
        "57,1.bmp,1",
        ",1.bmp,1",
        "UID_57_29_1_all.bmp,1.bmp",
        "UID_57_29_1_all.bmp",
    ],
)
def test_a_wrong_row_of_a_label_table(tmp_path, write_tree, row):
    write_tree(tmp_path, f"{PRELIMINARY}/1.bmp")
    write_csv(tmp_path / "labels.csv", HEADER, "UID_1_1_1_all.bmp,9.bmp,1", row)
    with pytest.raises(SourceError, match=r"labels\.csv.*line 3"):
        walk(tmp_path)


def test_all_wrong_rows_are_in_one_message(tmp_path, write_tree):
    write_tree(tmp_path, f"{PRELIMINARY}/1.bmp")
    write_csv(tmp_path / "labels.csv", HEADER, "UID_1_1_1_all.bmp,1.bmp,0", *LABELS[1:], "x,3.bmp,1")
    with pytest.raises(SourceError, match=r"line 2.*line 5"):
        walk(tmp_path)


def test_two_label_tables_that_agree_and_two_that_do_not(tmp_path, write_tree):
    write_tree(tmp_path, f"{PRELIMINARY}/1.bmp", f"{PRELIMINARY}/2.bmp")
    write_csv(tmp_path / "labels.csv", *LABELS)
    write_csv(tmp_path / PRELIMINARY / "labels.csv", *LABELS)
    assert walk(tmp_path)[f"{PRELIMINARY}/1.bmp"] == ("all", "57", "valid", -1)
    write_csv(tmp_path / PRELIMINARY / "labels.csv", HEADER, "UID_H25_3_2_hem.bmp,1.bmp,0")
    with pytest.raises(SourceError, match=r"1\.bmp"):
        walk(tmp_path)


def test_other_tables_in_the_tree_are_left_alone(tmp_path, write_tree):
    write_tree(tmp_path, f"{PRELIMINARY}/1.bmp")
    write_csv(tmp_path / "notes.csv", "who,what", "me,nothing")
    write_csv(tmp_path / "empty.csv")
    (tmp_path / "notes-latin.csv").write_bytes("größe,was\nklein,nichts\n".encode("latin-1"))
    write_csv(tmp_path / "labels.csv", *LABELS)
    assert walk(tmp_path)[f"{PRELIMINARY}/1.bmp"] == ("all", "57", "valid", -1)


# --- other trees ----------------------------------------------------------------------------------------------


def test_a_folder_per_class_with_three_classes(tmp_path, write_tree):
    write_tree(tmp_path, "blast/a.png", "healthy/a.jpg", "relapse/a.tif", "relapse/b.TIFF")
    assert walk(tmp_path) == {
        "blast/a.png": ("blast", "", "", -1),
        "healthy/a.jpg": ("healthy", "", "", -1),
        "relapse/a.tif": ("relapse", "", "", -1),
        "relapse/b.TIFF": ("relapse", "", "", -1),
    }


def test_class_subject_image(tmp_path, write_tree):
    write_tree(tmp_path, "blast/p1/a.png", "blast/p2/a.png", "healthy/p3/a.png")
    assert walk(tmp_path) == {
        "blast/p1/a.png": ("blast", "p1", "", -1),
        "blast/p2/a.png": ("blast", "p2", "", -1),
        "healthy/p3/a.png": ("healthy", "p3", "", -1),
    }
    part = read_trees([Tree(tmp_path)], ReadingOptions())
    assert part.subject_sources == ["folders of a known form"]


def test_train_valid_test_folders(tmp_path, write_tree):
    write_tree(
        tmp_path,
        "train/blast/a.png",
        "train/healthy/a.png",
        "val/blast/b.png",
        "test/healthy/c.png",
        "test/unsorted.png",
    )
    assert walk(tmp_path) == {
        "train/blast/a.png": ("blast", "", "train", -1),
        "train/healthy/a.png": ("healthy", "", "train", -1),
        "val/blast/b.png": ("blast", "", "valid", -1),
        "test/healthy/c.png": ("healthy", "", "test", -1),
        "test/unsorted.png": (None, "", "test", -1),
    }


def test_splits_folds_and_subjects_together(tmp_path, write_tree):
    write_tree(tmp_path, "train/fold-1/blast/p1/a.png", "train/fold-2/healthy/p2/a.png", "test/blast/p3/a.png")
    assert walk(tmp_path) == {
        "train/fold-1/blast/p1/a.png": ("blast", "p1", "train", 1),
        "train/fold-2/healthy/p2/a.png": ("healthy", "p2", "train", 2),
        "test/blast/p3/a.png": ("blast", "p3", "test", -1),
    }


def test_folders_around_everything_name_no_class(tmp_path, write_tree):
    write_tree(tmp_path, "download/cells v2/blast/a.png", "download/cells v2/healthy/a.png")
    assert {class_name for class_name, *_ in walk(tmp_path).values()} == {"blast", "healthy"}


def test_one_class_alone_keeps_its_name(tmp_path, write_tree):
    write_tree(tmp_path, "blast/a.png", "blast/b.png")
    assert {class_name for class_name, *_ in walk(tmp_path).values()} == {"blast"}


def test_dot_files_and_leftovers_of_archives_are_passed_over(tmp_path, write_tree):
    write_tree(
        tmp_path,
        "all/UID_1_1_1_all.bmp",
        "all/._UID_1_1_1_all.bmp",
        ".trash/all/UID_2_1_1_all.bmp",
        "__MACOSX/all/UID_3_1_1_all.bmp",
    )
    (tmp_path / "all" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "all" / "readme.txt").write_bytes(b"x")
    assert list(walk(tmp_path)) == ["all/UID_1_1_1_all.bmp"]


def test_size_and_time_are_those_of_the_file(tmp_path, write_tree):
    write_tree(tmp_path, "all/UID_1_1_1_all.bmp")
    (image,), _ = walk_tree_images(tmp_path)
    status = image.path.stat()
    assert image.state == (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    assert image.path == tmp_path / "all" / "UID_1_1_1_all.bmp"


# --- what is refused ------------------------------------------------------------------------------------------


def test_no_images(tmp_path):
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(SourceError, match=r"no images below .*\.bmp"):
        walk(tmp_path)


def test_labels_that_contradict_the_folder_are_in_one_message(tmp_path, write_tree):
    wrong = ["fold_0/hem/UID_1_1_1_all.bmp", "fold_1/all/UID_H1_1_1_hem.bmp"]
    write_tree(tmp_path, *wrong, "fold_0/all/UID_2_1_1_all.bmp")
    with pytest.raises(SourceError, match="2 images") as caught:
        walk(tmp_path)
    assert all(name in str(caught.value) for name in wrong)


@pytest.mark.parametrize(
    ("stray", "others"),
    [
        ("stray.png", ["blast/a.png", "healthy/a.png"]),
        ("train/stray.png", ["train/blast/a.png", "train/healthy/a.png", "test/blast/b.png"]),
        ("valid/stray.png", ["train/blast/a.png", "train/healthy/a.png", "valid/blast/b.png"]),
        ("fold_0/stray.png", ["fold_0/all/UID_1_1_1_all.bmp", "fold_1/hem/UID_H1_1_1_hem.bmp"]),
    ],
)
def test_an_image_in_no_class_s_folder(tmp_path, write_tree, stray, others):
    write_tree(tmp_path, stray, *others)
    with pytest.raises(SourceError, match="1 images") as caught:
        walk(tmp_path)
    assert stray in str(caught.value)
    found, _ = walk_tree_images(tmp_path, need_classes=False)
    assert len(found) == len(others) + 1


def test_a_folder_that_leads_back_up_is_not_walked_for_ever(tmp_path, write_tree):
    write_tree(tmp_path, "blast/a.png", "healthy/a.png")
    try:
        (tmp_path / "blast" / "up").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("this system lets no user make links")
    assert len(walk(tmp_path)) == 2


def test_linked_folders_are_read(tmp_path, write_tree):
    write_tree(tmp_path / "disk", "blast/a.png", "healthy/a.png")
    (tmp_path / "data").mkdir()
    try:
        for name in ("blast", "healthy"):
            (tmp_path / "data" / name).symlink_to(tmp_path / "disk" / name, target_is_directory=True)
    except OSError:
        pytest.skip("this system lets no user make links")
    assert list(walk(tmp_path / "data")) == ["blast/a.png", "healthy/a.png"]


# --- one file -------------------------------------------------------------------------------------------------


def test_one_file_is_read_by_its_name(tmp_path, write_tree):
    write_tree(tmp_path, "UID_H3_1_1_hem.bmp", "unknown.png")
    assert meaning(describe_file(tmp_path / "UID_H3_1_1_hem.bmp")) == ("hem", "H3", "", -1)
    assert meaning(describe_file(tmp_path / "unknown.png")) == (None, "", "", -1)


# --- what is no image file, and odd names ---------------------------------------------------------------------


posix_only = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files and names")


def missing(root: Path) -> set[str]:
    found, _ = walk_tree_images(root)
    return {image.record_id for image in found if not image.state.is_file}


@posix_only
def test_what_bears_an_images_name_is_listed_whatever_it_is(tmp_path, write_tree):
    write_tree(tmp_path, "a/1.bmp", "b/2.bmp", "b/folder.png/3.bmp")
    os.mkfifo(tmp_path / "a" / "pipe.bmp")
    (tmp_path / "a" / "folder.JPG").mkdir()
    (tmp_path / "a" / "nowhere.tif").symlink_to("absent")
    (tmp_path / "a" / "circle.bmp").symlink_to("circle.bmp")
    (tmp_path / "a" / "zero.bmp").symlink_to("/dev/zero")
    odd = {"a/pipe.bmp", "a/folder.JPG", "a/nowhere.tif", "a/circle.bmp", "a/zero.bmp"}
    assert missing(tmp_path) == odd
    assert walk(tmp_path).keys() == odd | {"a/1.bmp", "b/2.bmp", "b/folder.png/3.bmp"}
    assert all(image.class_name == "a" for image in walk_tree_images(tmp_path)[0] if image.record_id in odd)


@posix_only
def test_other_things_than_files_without_an_image_name_are_noted(tmp_path, write_tree):
    write_tree(tmp_path, "a/1.bmp", "b/2.bmp")
    os.mkfifo(tmp_path / "labels.csv")
    (tmp_path / "fold_3").symlink_to("/not/mounted")
    found, notes = walk_tree_images(tmp_path)
    assert len(found) == 2
    assert [note for note in notes if "fold_3, labels.csv" in note and note.startswith("passed over 2")] == notes


def test_a_file_that_vanishes_while_the_folder_is_listed_counts_as_missing(tmp_path, write_tree, monkeypatch):
    write_tree(tmp_path, "a/1.bmp", "a/2.bmp")
    scan = os.scandir

    def scan_and_lose(folder):
        entries = list(scan(folder))
        if Path(folder).name == "a":
            (tmp_path / "a" / "2.bmp").unlink()
        return entries

    if os.name == "nt":
        pytest.skip("on Windows listing a folder tells the files' states too")
    monkeypatch.setattr(os, "scandir", scan_and_lose)
    assert missing(tmp_path) == {"a/2.bmp"}


ODD_NAMES = [
    (b"two\nlines.bmp", "two\\nlines.bmp"),
    (b"caf\xe9.bmp", "caf\\xe9.bmp"),
    (b"\x1b[31mred.bmp", "\\x1b[31mred.bmp"),
    ("zellen-ä-細胞.bmp".encode(), "zellen-ä-細胞.bmp"),
    (b'=1+1, "x".bmp', '=1+1, "x".bmp'),
]


@posix_only
@pytest.mark.parametrize(("name", "shown"), ODD_NAMES)
def test_ids_are_lines_of_text_whatever_the_names_are(tmp_path, name, shown):
    try:
        for folder in ("a", os.fsdecode(name).removesuffix(".bmp")):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / os.fsdecode(name)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system refuses the name")
    odd_folder = shown.removesuffix(".bmp")
    found, _ = walk_tree_images(tmp_path)
    assert {image.record_id: image.class_name for image in found} == {
        f"a/{shown}": "a",
        f"{odd_folder}/{shown}": odd_folder,
    }
    assert all(image.path.read_bytes() == b"x" for image in found)
    assert {describe_file(image.path).record_id for image in found} == {
        f"{tmp_path.as_posix()}/{image.record_id}" for image in found
    }


def test_names_that_differ_in_case_alone_are_reported(tmp_path, write_tree):
    write_tree(tmp_path, "a/cell.bmp", "a/CELL.bmp", "b/cell.bmp")
    found, notes = walk_tree_images(tmp_path)
    if len(found) == 2:
        pytest.skip("this file system takes them for one file")
    assert len(found) == 3
    [note] = notes
    assert note.startswith("2 images differ")
    assert "a/CELL.bmp, a/cell.bmp" in note


def test_case_of_suffixes_and_of_cell_names_does_not_count(tmp_path, write_tree):
    write_tree(tmp_path, "UID_1_1_1_all.BMP", "uid_h2_1_1_HEM.bmp", "Uid_H2_1_2_Hem.Png", "x/UID_3_1_1_ALL.JPG")
    assert {meaning[:2] for meaning in walk(tmp_path).values()} == {("all", "1"), ("hem", "H2"), ("all", "3")}
