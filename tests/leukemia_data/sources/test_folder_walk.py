"""Walks of folders: deep trees, links, system files, and output of this project."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_data.errors import SourceError
from leukemia_data.sources.reading import NotRead
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source
from leukemia_data.sources.tree_folders import EXCLUDED, HIDDEN, OTHER_FILES, OUTPUT, SYSTEM, PassedOver
from leukemia_data.sources.tree_images import walk_folder

posix_only = pytest.mark.skipif(os.name != "posix", reason="Windows has no such links and paths")


def walk(root: Path, *exclude: str, given: tuple[str, ...] = ()) -> tuple[list[str], PassedOver]:
    passed_over = PassedOver()
    files = walk_folder(root, passed_over, ReadingOptions(exclude=exclude), given)
    return [file.record_id for file in files], passed_over


def read_passed_over(root: Path, **options) -> dict[str, NotRead]:
    return {one.reason: one for one in list_source([root], options=ReadingOptions(**options)).reading.passed_over}


def _names_in(descriptor: int) -> list[str]:
    with os.scandir(descriptor) as entries:
        return [entry.name for entry in entries]


@pytest.fixture
def deep(tmp_path: Path) -> Callable[..., Path]:
    """``deep(n, name="d")``: so many folders below one another, made and removed without a path of them all."""
    made: list[tuple[int, str]] = []

    def make(num_levels: int, name: str = "d") -> Path:
        start = os.open(tmp_path, os.O_RDONLY)
        made.append((start, name))
        here = start
        for _ in range(num_levels):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            if here != start:
                os.close(here)
            here = below
        os.close(os.open("1.png", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.close(here)
        return tmp_path

    yield make
    # Bottom up, each taken out of its parent to the top: no path grows long.
    for start, folder in made:
        while folder in _names_in(start):
            middle = os.open(folder, os.O_RDONLY, dir_fd=start)
            for name in _names_in(middle):
                if name == folder:
                    os.rename(folder, "below", src_dir_fd=middle, dst_dir_fd=start)
                else:
                    os.unlink(name, dir_fd=middle)
            os.close(middle)
            os.rmdir(folder, dir_fd=start)
            if "below" in _names_in(start):
                os.rename("below", folder, src_dir_fd=start, dst_dir_fd=start)
        os.close(start)


@posix_only
def test_a_tree_of_1200_levels_is_read(deep):
    root = deep(1_200)
    listing = list_source([root], options=ReadingOptions(class_level=1))
    (record,) = listing.records
    assert record.record_id == "d/" * 1_200 + "1.png"
    assert listing.classes == ("d",)


@posix_only
def test_a_tree_that_is_deeper_than_the_system_s_paths_is_refused_in_one_line(deep):
    with pytest.raises(SourceError, match="cannot list"):
        walk(deep(25, "d" * 200))


@posix_only
@pytest.mark.parametrize("target", [".", "..", "../..", "self/hem"])
def test_links_back_to_folders_above_bring_nothing_again(tmp_path, write_tree, target):
    root = write_tree(tmp_path / "a" / "cells", "hem/1.png", "all/2.png")
    (root / "self").mkdir()
    (root / "self" / "link").symlink_to(Path("..") / target if target != "self/hem" else root / "all")
    found, _ = walk(root)
    expected = ["all/2.png", "hem/1.png"]
    assert found == ([*expected, "self/link/2.png"] if target == "self/hem" else expected)


@posix_only
def test_a_link_to_a_folder_above_the_root_brings_no_siblings(tmp_path, write_tree):
    root = write_tree(tmp_path / "cells", "hem/1.png")
    write_tree(tmp_path / "other", "all/1.png")
    (root / "up").symlink_to(tmp_path)
    assert walk(root)[0] == ["hem/1.png"]


OUTPUTS = {
    "runs/2024": ("run.json", "history.csv"),
    "runs/interrupted": ("run.json", "split.csv"),
    "kfold": ("kfold.json",),
    "compared": ("comparison.json", "comparison.md"),
    "audit": ("audit.json", "findings.csv"),
    "experiment": ("batchnorm.json", "batchnorm.csv"),
    "evaluated": ("results.json", "summary.md"),
}


@pytest.mark.parametrize("folder", OUTPUTS)
def test_what_these_commands_wrote_is_passed_over(tmp_path, write_tree, folder):
    root = write_tree(tmp_path, "hem/1.png", "all/2.png", f"{folder}/confusion.png", f"{folder}/figures/roc.png")
    for name in OUTPUTS[folder]:
        (root / folder / name).write_text("{}", encoding="utf-8")
    assert dict(list_source([root]).reading.classes) == {"hem": 1, "all": 1}
    found = read_passed_over(root)[OUTPUT]
    assert (found.count, found.examples) == (1, (f"{folder}/",))
    # One of these files alone is not from this project.
    if len(OUTPUTS[folder]) > 1:
        (root / folder / OUTPUTS[folder][1]).unlink()
        assert any(name.startswith(folder) for name in walk(root)[0])


@pytest.mark.parametrize(
    "name", ["@eaDir", "#recycle", "lost+found", "$RECYCLE.BIN", "__MACOSX", "System Volume Information", ".thumbnails"]
)
def test_folders_of_systems_are_passed_over(tmp_path, write_tree, name):
    root = write_tree(tmp_path, "hem/1.png", "all/2.png", f"{name}/hem/3.png", f"hem/{name}/4.png")
    assert dict(list_source([root]).reading.classes) == {"hem": 1, "all": 1}
    found = read_passed_over(root)[HIDDEN if name.startswith(".") else SYSTEM]
    assert (found.count, set(found.examples)) == (2, {name, f"hem/{name}"})


def test_what_is_passed_over_is_counted_with_three_examples(tmp_path, write_tree):
    root = write_tree(tmp_path, "hem/1.png", "all/2.png", *(f"all/old/{n}.png" for n in range(3)), "all/z.old.png")
    for number in range(5):
        (root / "hem" / f"{number}.txt").write_text("x", encoding="utf-8")
        (root / "hem" / f".{number}").write_text("x", encoding="utf-8")
    found = {
        reason: (one.count, one.examples)
        for reason, one in read_passed_over(root, exclude=("old", "*.old.png")).items()
    }
    assert found == {
        EXCLUDED: (2, ("all/old", "all/z.old.png")),
        HIDDEN: (5, ("hem/.0", "hem/.1", "hem/.2")),
        OTHER_FILES: (5, ("hem/0.txt", "hem/1.txt", "hem/2.txt")),
    }


def test_masks_and_thumbnails_are_passed_over_beside_images_only(tmp_path, write_tree):
    root = write_tree(
        tmp_path, "hem/1.png", "hem/1_mask.png", "all/2.png", "all/2-Seg-Mask.png", "all/mask.png", "masks/hem/1.png"
    )
    assert dict(list_source([root], options=ReadingOptions(class_level=1)).reading.classes) == {"hem": 1, "all": 2}
    alone = write_tree(tmp_path / "alone", "masks/hem/1.png", "masks/all/1.png")
    assert len(list_source([alone]).records) == 2


def test_excluded_places_of_one_of_several_sources(tmp_path, write_tree):
    root = write_tree(tmp_path / "site", "hem/1.png", "hem/old/2.png")
    assert walk(root, "/hem/old", given=("site",))[0] == ["site/hem/1.png"]
    assert walk(root, "/site/hem/old", given=("site",))[0] == ["site/hem/1.png"]
    assert walk(root, "/other/hem/old", given=("site",))[0] == ["site/hem/1.png", "site/hem/old/2.png"]
