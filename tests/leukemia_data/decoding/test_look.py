"""Looks of images: modified copies have similar looks, other pictures different ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np
import pytest

from leukemia_data.decoding.decode import decode_rgb, read_file
from leukemia_data.decoding.look import image_look
from leukemia_data.records.near_looks import NEAR_CORRELATION, look_correlations, near_groups
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.sources.sample_cells import generate_cell
from leukemia_data.sources.source import list_source
from leukemia_data.splitting.held_out import fold_specs
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.splitting.splits import assign_split

NUM = 12


@pytest.fixture(scope="module")
def cells() -> list[np.ndarray]:
    """Generated cells of several subjects, 450 px."""
    return [generate_cell(3, subject, 0, cell) for subject in range(4) for cell in range(NUM // 4)]


def looks_of(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([image_look(np.ascontiguousarray(image)) for image in images])


def with_changed_pixels(image: np.ndarray, count: int, *, in_cell: bool) -> np.ndarray:
    rng = np.random.default_rng(count)
    rows, columns = np.nonzero(image.max(axis=2) > 8) if in_cell else np.indices(image.shape[:2]).reshape(2, -1)
    chosen = rng.choice(len(rows), count, replace=False)
    changed = image.copy()
    changed[rows[chosen], columns[chosen]] = rng.integers(0, 256, (count, 3))
    return changed


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def cropped(image: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(image.max(axis=2) > 8)
    return image[rows.min() - 2 : rows.max() + 3, columns.min() - 2 : columns.max() + 3]


def brighter(image: np.ndarray, factor: float) -> np.ndarray:
    return (image * factor).clip(0, 255).astype(np.uint8)


def noisy(image: np.ndarray) -> np.ndarray:
    return (image + np.random.default_rng(0).normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)


COPIES = {
    "turned by a quarter": np.rot90,
    "turned by a half": lambda image: np.rot90(image, 2),
    "mirrored": lambda image: image[:, ::-1],
    "transposed": lambda image: image.swapaxes(0, 1),
    "27 pixels of the cell": lambda image: with_changed_pixels(image, 27, in_cell=True),
    "40 pixels of the cell": lambda image: with_changed_pixels(image, 40, in_cell=True),
    "40 pixels anywhere": lambda image: with_changed_pixels(image, 40, in_cell=False),
    "JPEG 95": lambda image: as_jpeg(image, 95),
    "JPEG 80": lambda image: as_jpeg(image, 80),
    "brighter": lambda image: brighter(image, 1.1),
    "darker": lambda image: brighter(image, 0.8),
    "noise": noisy,
    "300 px": lambda image: cv2.resize(image, (300, 300), interpolation=cv2.INTER_AREA),
    "224 px, turned": lambda image: np.rot90(cv2.resize(image, (224, 224), interpolation=cv2.INTER_CUBIC)),
    "128 px": lambda image: cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA),
    "shifted": lambda image: np.roll(image, (7, -5), axis=(0, 1)),
    "odd side, turned": lambda image: np.rot90(image[:449, :447]),
    "cropped": cropped,
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_near(cells, kind):
    correlations = look_correlations(looks_of(cells), looks_of([COPIES[kind](cell) for cell in cells]))
    assert correlations.min() >= NEAR_CORRELATION


def test_other_cells_are_not(cells):
    looks = looks_of(cells)
    pairs = np.array(list(combinations(range(NUM), 2)))
    assert look_correlations(looks[pairs[:, 0]], looks[pairs[:, 1]]).max() < 0.9


def test_a_turned_image_has_the_turned_look(cells):
    # Row-major frequencies: transposed for a transposed image, odd columns negated for a mirrored one.
    square = image_look(cells[0]).reshape(8, 8).astype(int)
    transposed = image_look(np.ascontiguousarray(cells[0].swapaxes(0, 1))).reshape(8, 8)
    mirrored = image_look(np.ascontiguousarray(cells[0][:, ::-1])).reshape(8, 8)
    assert np.abs(transposed - square.T).max() <= 1
    assert np.abs(mirrored - square * np.where(np.arange(1, 9) % 2, -1, 1)).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 90, 255])
@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 300, 3), (450, 450, 3)])
def test_a_flat_frame_has_no_look(level, shape):
    assert not image_look(np.full(shape, level, np.uint8)).any()


def test_a_smooth_disc_has_no_look_and_noise_on_it_is_its_own():
    rng = np.random.default_rng(1)
    looks = []
    for _ in range(40):
        rows, columns = np.mgrid[:140, :140] - 70 + rng.uniform(-5, 5)
        radius = np.hypot(rows * rng.uniform(0.9, 1.1), columns) / rng.uniform(45, 60)
        shaded = np.array([200, 140, 160]) * (1 - rng.uniform(0.1, 0.3) * radius[..., None] ** 2)
        disc = shaded + rng.normal(0, 2, shaded.shape)
        looks.append(image_look(np.where(radius[..., None] < 1, disc, 0).clip(0, 255).astype(np.uint8)))
    assert len(set(near_groups(np.stack(looks)).tolist())) == len(looks)


def test_photographs_on_a_white_background_are_distinguished():
    rng = np.random.default_rng(2)
    photographs = []
    for _ in range(20):
        photograph = np.full((240, 320, 3), 244, np.uint8)
        for _ in range(6):
            centre = (int(rng.integers(20, 300)), int(rng.integers(20, 220)))
            colour = tuple(int(value) for value in rng.integers(60, 220, 3))
            cv2.circle(photograph, centre, int(rng.integers(12, 30)), colour, -1, cv2.LINE_AA)
        photographs.append(photograph)
    looks = looks_of(photographs)
    assert len(set(near_groups(looks).tolist())) == len(photographs)
    copies = looks_of([np.rot90(as_jpeg(photograph, 90)) for photograph in photographs])
    assert look_correlations(looks, copies).min() >= NEAR_CORRELATION


def test_grey_noise_of_several_draws_is_not_near(make_noise, rng):
    looks = looks_of([make_noise(rng, 64, 64) for _ in range(30)])
    assert len(set(near_groups(looks).tolist())) == 30


# --- real cells -----------------------------------------------------------------------------------------------


@pytest.mark.real
def test_no_two_people_of_fold_1_are_tied_and_its_splits_stay(real_data):
    # Every second cell: docs/audit.md has the figures of all.
    records = list_source([real_data / "cnmc_fold1"]).records[::2]
    looks = np.stack([image_look(decode_rgb(read_file(record.path).data)) for record in records])
    assert looks.any(axis=1).all()
    blind = SampleTable.from_records(records)
    # Without identical images, which tie subjects with looks and without.
    blind.pixel_digests[:, :8] = np.arange(len(blind), dtype=np.uint64)[:, None].view(np.uint8)
    seeing = replace(blind, looks=looks)
    people: dict[int, set[str]] = {}
    for group, subject in zip(seeing.near_groups.tolist(), seeing.subject_texts, strict=True):
        people.setdefault(group, set()).add(subject)
    assert len(people) < len(blind)
    assert all(len(each) == 1 for each in people.values())
    for text in ("subject", "fold:2/3", "test-fold:1/2+valid", "image"):
        for seed in range(3):
            expected = assign_split(parse_split(text), blind, seed)
            np.testing.assert_array_equal(assign_split(parse_split(text), seeing, seed), expected)
    assert fold_specs("loso", seeing) == fold_specs("loso", blind)


@pytest.fixture(scope="module")
def real_cells(real_data):
    paths = sorted((real_data / "cnmc_fold1").rglob("*.png"))[::120]
    return [decode_rgb(read_file(path).data) for path in paths]


@pytest.fixture(scope="module")
def real_looks(real_cells):
    return looks_of(real_cells)


@pytest.mark.real
@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_real_cells_are_near(real_cells, real_looks, kind):
    real = real_cells
    correlations = look_correlations(real_looks, looks_of([COPIES[kind](cell) for cell in real]))
    # A cell at the frame's border is cut by a shift that goes round.
    assert (correlations >= NEAR_CORRELATION).sum() >= len(real) - (kind == "shifted")
