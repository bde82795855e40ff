"""A split written to a file and read back: its samples on a changed cache, and looked up by pixels."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.caches.cache import Cache, open_cache
from leukemia_data.errors import CacheError, RunError
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source
from leukemia_data.splitting.seen_samples import Naming
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED
from leukemia_models.runs.run_config import RunConfig, save_config
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import (
    PIXEL_DIGEST,
    SplitRow,
    data_digest,
    digest_texts,
    holds_data,
    load_known_samples,
    naming_of,
    read_split,
    split_digest,
    write_split,
)
from leukemia_models.runs.start_weights import split_of_run
from leukemia_models.training.run_state import TrainSettings

from ...leukemia_data.consoles import ListConsole
from ...leukemia_data.helpers import build, cache_dir, write_cell

SIZE_PX = 16
BY_FOLDER = ReadingOptions(subject_from="folder")
PART_OF = {"a0": "train", "h0": "train", "a1": "test", "h1": "valid"}


def built(source: Path, root: Path, options: ReadingOptions = BY_FOLDER) -> Cache:
    build(list_source([source], options=options), root, sizes_px=(SIZE_PX,))
    return open_cache(cache_dir(root, SIZE_PX))


@dataclass(frozen=True)
class Begun:
    source: Path
    cache: Cache
    folder: RunFolder
    config: RunConfig
    codes: np.ndarray


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Begun:
    """A run on two images each of four people; h2's are unused. Read it, never change it."""
    root = tmp_path_factory.mktemp("begun")
    for number, subject in enumerate(("a0", "a1", "h0", "h1", "h2")):
        for image in (0, 1):
            folder = root / "source" / {"a": "all", "h": "hem"}[subject[0]] / subject
            write_cell(folder / f"{subject}-{image}.png", 10 * number + image)
    cache = built(root / "source", root / "cache")
    parts = [PART_OF.get(subject) for subject in cache.table.subject_texts]
    codes = np.array([UNUSED if part is None else SPLIT_NAMES.index(part) for part in parts], np.int8)
    config = RunConfig(
        model_name="resnet18-narrow",
        cache_dir=str(cache.location),
        data_fingerprint=cache.manifest.fingerprint,
        data_digest=data_digest(cache),
        split="given",
        split_seed=0,
        batch_size=2,
        normalization={"mean": [0.1] * 3, "std": [0.2] * 3},
        settings=TrainSettings(epochs=1),
    )
    folder = RunFolder(root / "run")
    folder.root.mkdir()
    save_config(folder, config)
    write_split(folder.split, cache.table, codes)
    return Begun(root / "source", cache, folder, config, codes)


@pytest.fixture
def earlier_run(begun: Begun, tmp_path: Path) -> Begun:
    """The same as version 0.1 wrote it: without digests."""
    folder = RunFolder(tmp_path / "earlier")
    shutil.copytree(begun.folder.root, folder.root)
    with begun.folder.split.open(newline="") as file:
        rows = list(csv.reader(file))
    with folder.split.open("w", newline="") as file:
        csv.writer(file).writerows(row[:4] for row in rows)
    return replace(begun, folder=folder)


def images_of(source: Path, subject: str) -> list[Path]:
    return sorted(source.rglob(f"{subject}-*.png"))


def add_person(source: Path) -> None:
    write_cell(source / "all" / "a12345678" / "a12345678-with-a-long-name.png", 99)


def swap_images(source: Path) -> None:
    """Train and test images change names."""
    one, other = images_of(source, "a0")[0], images_of(source, "a1")[0]
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])


def remove_person(source: Path) -> None:
    shutil.rmtree(source / "all" / "a1")


def change_all(source: Path) -> None:
    for number, path in enumerate(sorted(source.rglob("*.png"))):
        write_cell(path, 500 + number)


def changed(begun: Begun, root: Path, change: Callable[[Path], None], options: ReadingOptions = BY_FOLDER) -> Cache:
    source = Path(shutil.copytree(begun.source, root / "changed"))
    change(source)
    return built(source, root / "cache", options)


def nothing(source: Path) -> None:
    pass


def test_the_split_comes_back_with_every_samples_digest(begun: Begun) -> None:
    console = ListConsole()
    data = split_of_run(begun.folder, begun.config, begun.cache, console)
    np.testing.assert_array_equal(data.codes, begun.codes)
    assert (data.num_added, console.notes) == (0, [])
    with begun.folder.split.open(newline="") as file:
        digest_of = {row["id"]: row[PIXEL_DIGEST] for row in csv.DictReader(file)}
    own = begun.cache.table.pixel_digests
    assert digest_of == {name: row.tobytes().hex() for name, row in zip(begun.cache.table.id_texts, own, strict=True)}
    assert digest_texts(begun.cache.table) == [row.tobytes().hex() for row in own]


@pytest.mark.parametrize("version", ["this", "0.1"])
def test_added_images_are_unused_and_noted(version: str, begun: Begun, earlier_run: Begun, tmp_path: Path) -> None:
    run = begun if version == "this" else earlier_run
    cache = changed(begun, tmp_path, add_person)
    assert not holds_data(cache, run.config.data_digest)
    console = ListConsole()
    data = split_of_run(run.folder, run.config, cache, console)
    part_of = dict(zip(cache.table.id_texts, data.codes.tolist(), strict=True))
    own = dict(zip(begun.cache.table.id_texts, begun.codes.tolist(), strict=True))
    assert {name: part_of.pop(name) for name in own} == own
    assert list(part_of.values()) == [UNUSED]
    assert data.num_added == 1
    [note] = console.notes
    assert "1 images that were added" in note
    assert split_digest(cache.table, data.codes) == split_digest(begun.cache.table, begun.codes)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (swap_images, BY_FOLDER, ["2 have other pixels under the same id (first all/a0/a0-0.png)"]),
        (change_all, BY_FOLDER, ["of its 8 images 8 have other pixels"]),
        (remove_person, BY_FOLDER, ["2 are missing (first all/a1/a1-0.png)"]),
        (nothing, replace(BY_FOLDER, classes=("all", "hem")), ["8 have another label", "0 instead of 1"]),
        (nothing, ReadingOptions(subject_from="none"), ["8 have another subject", "unknown instead of a0"]),
    ],
)
def test_changed_samples_are_counted_and_refused(
    change: Callable[[Path], None], options: ReadingOptions, words: list[str], begun: Begun, tmp_path: Path
) -> None:
    cache = changed(begun, tmp_path, change, options)
    with pytest.raises(RunError) as error:
        split_of_run(begun.folder, begun.config, cache)
    assert all(word in str(error.value) for word in [*words, "--cache", "train again", str(cache.location)])


@pytest.mark.parametrize("change", [swap_images, change_all])
def test_an_earlier_run_refuses_what_may_be_other_pixels(
    change: Callable[[Path], None], begun: Begun, earlier_run: Begun, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="earlier version"):
        split_of_run(earlier_run.folder, begun.config, changed(begun, tmp_path, change))


def test_an_earlier_run_continues_with_its_cache(earlier_run: Begun) -> None:
    data = split_of_run(earlier_run.folder, earlier_run.config, earlier_run.cache)
    np.testing.assert_array_equal(data.codes, earlier_run.codes)


def test_unused_images_may_go_and_change(begun: Begun, tmp_path: Path) -> None:
    def without_unused(source: Path) -> None:
        first, second = images_of(source, "h2")
        first.unlink()
        write_cell(second, 700)

    data = split_of_run(begun.folder, begun.config, changed(begun, tmp_path, without_unused))
    assert (data.codes != UNUSED).sum() == 8


def test_the_digest_of_a_split_changes_with_whatever_decides_it(begun: Begun) -> None:
    table, codes = begun.cache.table, begun.codes
    digest = split_digest(table, codes)
    order = np.random.default_rng(0).permutation(len(table))
    assert split_digest(table.take(order), codes[order]) == digest
    [test, *_] = np.flatnonzero(codes == SPLIT_NAMES.index("test"))
    [train, *_] = np.flatnonzero(codes == SPLIT_NAMES.index("train"))

    def edited(name: str, row: int, value: object) -> str:
        column = getattr(table, name).copy()
        column[row] = value
        return split_digest(replace(table, **{name: column}), codes)

    assert edited("labels", test, -1) == digest  # the label of a test image may come later
    others = [edited("labels", train, 1 - table.labels[train]), edited("subjects", test, b"x")]
    others += [edited("ids", test, b"x"), edited("pixel_digests", test, 0)]
    moved = codes.copy()
    moved[train] = SPLIT_NAMES.index("test")
    assert digest not in [*others, split_digest(table, moved)]


def test_the_naming_is_the_sources_own(begun: Begun) -> None:
    naming = naming_of(begun.cache)
    assert naming == Naming(begun.cache.manifest.name, naming.subjects_from)


@pytest.mark.parametrize("wrong", ["id,subject,label,split,pixel_digest\na,b,0,train,xyz\n", "id,split\na,train\n"])
def test_damaged_splits_are_refused(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text(wrong, encoding="utf-8")
    with pytest.raises(RunError, match=r"split.csv cannot be read"):
        read_split(path)


# --- looking up other images ------------------------------------------------------------------------------------------

A, B, C = ("a" * 32, "b" * 32, "c" * 32)
CLASSES = ("hem", "all")


def no_cache() -> Cache:
    raise CacheError("gone")


def never() -> Cache:
    raise AssertionError("the cache is not needed")


def written(folder: Path, *lines: str) -> RunFolder:
    (folder / "split.csv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return RunFolder(folder)


def test_images_are_found_by_their_pixels_alone(tmp_path: Path) -> None:
    run = written(
        tmp_path, "id,subject,label,split,pixel_digest", f"'=1.bmp,'-2,1,train,{A}", f"2.bmp,,0,test,{B.upper()}"
    )
    known = load_known_samples(run, CLASSES, never)
    assert known.is_complete
    assert list(known.rows) == ["=1.bmp", "2.bmp"]
    assert known.find(A) == SplitRow("-2", 1, "train", A)
    assert known.find(B) == SplitRow("", 0, "test", B)
    assert known.find(C) is None
    assert known.find("") is None


@pytest.mark.parametrize("order", [("train", "valid", "test", "unused"), ("unused", "test", "valid", "train")])
def test_of_identical_images_one_that_was_trained_on_counts(tmp_path: Path, order: tuple[str, ...]) -> None:
    rows = [f"{split}.bmp,1,1,{split},{A}" for split in order]
    known = load_known_samples(written(tmp_path, "id,subject,label,split,pixel_digest", *rows), CLASSES, never)
    found = known.find(A)
    assert found is not None
    assert found.split == "train"


def test_a_split_of_an_earlier_version_without_its_cache_recognises_nothing_and_says_so(tmp_path: Path) -> None:
    known = load_known_samples(written(tmp_path, "id,subject,label,split", "1.bmp,7,1,train"), CLASSES, no_cache)
    assert not known.is_complete
    assert known.find(A) is None
    assert [row.subject for row in known.in_parts(["train", "valid"])] == ["7"]


def test_a_run_without_a_split_recognises_nothing(tmp_path: Path) -> None:
    known = load_known_samples(RunFolder(tmp_path), CLASSES, never)
    assert not known.is_complete
    assert known.rows == {}


@pytest.mark.parametrize(
    ("text", "label"), [("0", 0), ("1", 1), ("-1", -1), ("", -1), ("ALL", 1), ("2", -1), ("x", -1)]
)
def test_labels_are_numbers_or_names(tmp_path: Path, text: str, label: int) -> None:
    run = written(tmp_path, "\ufeffid,subject,label,split,pixel_digest", f"1.bmp,7,{text},train,{A}")
    assert load_known_samples(run, CLASSES, never).rows["1.bmp"].label == label


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n", "id,subject,label,split\n1.bmp,1,1,some\n", "id,subject,label,split\n1\n"]
)
def test_a_damaged_split_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "split.csv").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=r"split\.csv"):
        load_known_samples(RunFolder(tmp_path), CLASSES, never)
