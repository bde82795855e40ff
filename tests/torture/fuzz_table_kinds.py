"""Tables, settings and images: the files that users write, and their readers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from leukemia_data.auditing.reference_index import (
    read_lab_table,
    read_reference_table,
    reference_classes,
    write_lab_table,
)
from leukemia_data.augmenting.augmentation import AUGMENTATIONS_DIR, load_augmentation
from leukemia_data.decoding.decode import decode_rgb
from leukemia_data.operations.recipe import PRESETS_DIR, load_recipe
from leukemia_data.sources.image_rows import list_table_rows
from leukemia_data.sources.source import list_source
from leukemia_models.training.plan_file import PLANS_DIR, load_plan

from .fuzz_kind import FileKind, kind_at, replacing
from .fuzz_mutations import mutated_bytes, mutated_text
from .fuzz_places import Places


def table_kinds(places: Places) -> Iterator[FileKind]:
    folder = places.root / "tables"
    folder.mkdir()
    images = sorted(path.relative_to(places.root).as_posix() for path in places.source.rglob("*.png"))
    rows = [f"{path},{number % 2},S{number % 4},train" for number, path in enumerate(images)]
    table = folder / "train.csv"
    table.write_text("\n".join(["Path,label,subject,split", *rows]) + "\n")
    yield kind_at("table of images", table, mutated_text, lambda: _read_source([table], places.root))
    lab = folder / "lab.csv"
    lab.write_text("\n".join(["Path,label", *(row.rsplit(",", 2)[0] for row in rows)]) + "\n")
    yield kind_at("lab's table", lab, mutated_text, lambda: _read_lab_table(lab))
    submission = folder / "test.csv"
    submission.write_text("\n".join(["Path", *images]) + "\n")
    yield kind_at("list to submit", submission, mutated_text, lambda: _read_submission(submission, places.root))
    reference = folder / "reference.csv"
    names = [f"UID_{'H' * (n % 2)}{n}_1_1_{('all', 'hem')[n % 2]}.bmp" for n in range(8)]
    named = [f"{name},{n:064x},{1 - n % 2},train,fold_{n % 3},{n}" for n, name in enumerate(names)]
    reference.write_text("\n".join(["path,sha256,label,part,fold,bytes", *named]) + "\n")
    yield kind_at("table of names", reference, mutated_text, lambda: _read_reference(reference))
    tree = places.root / "tree" / "C-NMC_test_prelim_phase_data"
    tree.mkdir(parents=True)
    for number in range(len(names)):
        (tree / f"{number}.bmp").write_bytes(b"BM")
    labels = tree / "labels.csv"
    lines = [f"{name},{number}.bmp,{1 - number % 2}" for number, name in enumerate(names)]
    labels.write_text("\n".join(["Patient_ID,new_names,labels", *lines]) + "\n")
    yield kind_at("label table", labels, mutated_text, lambda: _read_source([tree.parent], None))


def _read_source(paths: list[Path], root: Path | None) -> None:
    listing = list_source(paths, root=root)
    assert len({record.record_id for record in listing.records}) == len(listing.records)
    assert all(-1 <= record.label < len(listing.classes) for record in listing.records)


def _read_lab_table(path: Path) -> None:
    table = read_lab_table(path)
    assert len(table.image_paths) == len(table.class_names) == len(table.splits) == len(table.rows)
    again = path.with_name("lab-again.csv")
    write_lab_table(again, table, {"subject_candidates": ["a"] * len(table.rows)})
    found = read_lab_table(again)
    assert [row[:-1] for row in found.rows] == list(table.rows)


def _read_submission(path: Path, root: Path) -> None:
    rows = list_table_rows(path, root, need_files=True)
    assert [row.line for row in rows] == sorted({row.line for row in rows})
    assert all(Path(row.record.path).is_file() for row in rows)


def _read_reference(path: Path) -> None:
    rows = read_reference_table(path)
    assert {row.class_name for row in rows} - {""} <= set(reference_classes(rows))


def settings_kinds(places: Places) -> Iterator[FileKind]:
    for name, folder, read in (
        ("recipe", PRESETS_DIR, _read_recipe),
        ("augmentation", AUGMENTATIONS_DIR, _read_augmentation),
        ("plan", PLANS_DIR, lambda path: load_plan(str(path))),
    ):
        path = places.root / f"{name}.toml"
        seeds = tuple(each.read_bytes() for each in sorted(folder.glob("*.toml")))
        path.write_bytes(seeds[0])
        yield FileKind(name, seeds, mutated_text, replacing(path, lambda path=path, read=read: read(path)))


def _read_recipe(path: Path) -> None:
    recipe = load_recipe(str(path))
    recipe.check_size(128)
    assert type(recipe).from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def _read_augmentation(path: Path) -> None:
    augmentation = load_augmentation(str(path))
    path.write_bytes(augmentation.to_toml().encode("utf-8"))
    assert load_augmentation(str(path)) == augmentation


def image_kinds(places: Places) -> Iterator[FileKind]:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    grey = pixels[..., 0].copy()
    for suffix in (".bmp", ".png", ".jpg", ".tiff"):
        seeds = tuple(cv2.imencode(suffix, image)[1].tobytes() for image in (pixels, grey))
        yield FileKind(suffix[1:], seeds, mutated_bytes, _decode, share=6)


def _decode(data: bytes) -> None:
    image = decode_rgb(np.frombuffer(data, np.uint8))
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
