from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from leukemia_data.errors import SourceError, UsageError
from leukemia_data.records.record import parse_cell_name
from leukemia_data.sources.sample_cells import generate_cell
from leukemia_data.sources.sample_set import plan_sample, write_sample

HEM, ALL = 0, 1
TRAINING = Path("C-NMC_Leukemia") / "training_data"


@pytest.fixture(scope="module")
def cells() -> dict[int, np.ndarray]:
    """Six subjects of each class, five cells (one photograph) each: label -> (6, 5, 450, 450, 3)."""
    return {
        label: np.stack([[generate_cell(0, s, c, label) for c in range(5)] for s in range(1, 7)])
        for label in (HEM, ALL)
    }


def files_below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- one cell -------------------------------------------------------------------------------------------------


def test_a_cell_is_a_function_of_its_coordinates_alone():
    first = generate_cell(3, 2, 7, ALL)
    generate_cell(3, 1, 0, HEM)
    np.testing.assert_array_equal(generate_cell(3, 2, 7, ALL), first)


@pytest.mark.parametrize("other", [(4, 2, 7, ALL), (3, 3, 7, ALL), (3, 2, 8, ALL), (3, 2, 7, HEM)])
def test_each_coordinate_changes_the_cell(other):
    assert not np.array_equal(generate_cell(3, 2, 7, ALL), generate_cell(*other))


def test_a_seed_over_32_bits_differs_from_its_low_word():
    assert not np.array_equal(generate_cell(2**32 + 5, 1, 0, ALL), generate_cell(5, 1, 0, ALL))


def test_shape_and_type(cells):
    assert cells[ALL].shape == (6, 5, 450, 450, 3)
    assert cells[ALL].dtype == np.uint8


@pytest.mark.parametrize("label", [HEM, ALL])
def test_background_is_exact_zero_and_the_cell_one_piece_without_holes(cells, label):
    for image in cells[label].reshape(-1, 450, 450, 3):
        mask = image.any(axis=2)
        np.testing.assert_array_equal(image.all(axis=2), mask)
        num_components, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
        num_outside, _ = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=8)
        assert (num_components, num_outside) == (2, 2)  # background label and one region, both ways


@pytest.mark.parametrize("label", [HEM, ALL])
def test_coverage_and_position_are_those_of_real_cells(cells, label):
    for image in cells[label].reshape(-1, 450, 450, 3):
        mask = image.any(axis=2)
        assert 0.10 <= mask.mean() <= 0.22
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        for line in (rows, columns):
            assert 140 <= line[-1] - line[0] + 1 <= 290
            assert abs((line[0] + line[-1]) / 2 - 224.5) <= 12
        assert mask[90:360, 90:360].sum() >= 0.97 * mask.sum()


def test_pixel_statistics_are_near_those_measured_on_real_images(cells):
    images = np.concatenate([cells[ALL], cells[HEM][:3]]) / 255.0  # two thirds are ALL
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2, 3)), (0.048, 0.020, 0.055), rtol=0.3)
    crop = images[:, :, 90:360, 90:360]
    np.testing.assert_allclose(crop.mean(axis=(0, 1, 2, 3)), (0.134, 0.055, 0.152), rtol=0.3)
    np.testing.assert_allclose(crop.std(axis=(0, 1, 2, 3)), (0.137, 0.060, 0.153), rtol=0.3)


def test_lymphoblasts_are_larger_and_paler_but_the_classes_overlap(cells):
    coverage = {label: images.any(axis=-1).mean(axis=(2, 3)).ravel() for label, images in cells.items()}
    assert coverage[ALL].mean() > coverage[HEM].mean() + 0.015
    assert coverage[ALL].min() < coverage[HEM].max()
    green = {label: images[..., 1].sum() / images.any(axis=-1).sum() for label, images in cells.items()}
    assert green[ALL] > green[HEM]


@pytest.mark.parametrize("label", [HEM, ALL])
def test_stain_differs_more_between_subjects_than_within_one(cells, label):
    inside = cells[label].any(axis=-1).sum(axis=(2, 3))
    log_colour = np.log(cells[label].sum(axis=(2, 3)) / inside[..., None])  # (subject, cell, channel)
    between = log_colour.mean(axis=1).std(axis=0, ddof=1)
    within = np.sqrt(log_colour.var(axis=1, ddof=1).mean(axis=0))
    assert np.linalg.norm(between) > np.linalg.norm(within)


# --- the plan -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_subjects", "num_all"), [(2, 1), (3, 2), (4, 3), (6, 4), (24, 16), (73, 49)]
)  # two thirds, rounded, one of each class at least
def test_two_thirds_of_the_subjects_have_leukaemia(num_subjects, num_all):
    subjects = {(cell.label, cell.subject_number) for cell in plan_sample(num_subjects, 1)}
    assert sum(label == ALL for label, _ in subjects) == num_all
    assert len(subjects) == num_subjects


def test_names_parse_and_each_subject_is_in_one_fold():
    folds = defaultdict(set)
    cells = plan_sample(9, 12)
    for cell in cells:
        fold, class_name, file_name = cell.relative_path.split("/")[2:]
        parsed = parse_cell_name(file_name)
        assert parsed is not None
        assert parsed.label == cell.label == ("hem", "all").index(class_name)
        folds[parsed.subject].add(fold)
    assert sorted(folds) == ["1", "2", "3", "4", "5", "6", "H1", "H2", "H3"]
    assert all(len(of_subject) == 1 for of_subject in folds.values())
    assert {fold for s in ("H1", "H2", "H3") for fold in folds[s]} == {"fold_0", "fold_1", "fold_2"}
    assert {fold for s in ("1", "2", "3") for fold in folds[s]} == {"fold_0", "fold_1", "fold_2"}
    assert len({cell.relative_path for cell in cells}) == 9 * 12


def test_a_subject_has_a_few_photographs_with_several_cells_each():
    names = [cell.relative_path.rsplit("/", 1)[1] for cell in plan_sample(2, 12) if cell.label == HEM]
    assert names[0] == "UID_H1_1_1_hem.bmp"
    assert names[4:6] == ["UID_H1_1_5_hem.bmp", "UID_H1_2_1_hem.bmp"]
    assert names[-1] == "UID_H1_3_2_hem.bmp"


# --- the files ------------------------------------------------------------------------------------------------


def test_files_are_24_bit_bmps_that_hold_the_generated_pixels(tmp_path):
    ticks: list[int] = []
    summary = write_sample(tmp_path, num_subjects=3, cells_per_subject=2, seed=5, progress=ticks.append)
    files = files_below(tmp_path)
    assert sorted(files) == sorted(cell.relative_path for cell in plan_sample(3, 2))
    assert (summary.root, summary.num_images, summary.num_bytes) == (tmp_path, 6, 6 * 608_454)
    assert (summary.num_all_subjects, summary.num_hem_subjects) == (2, 1)
    assert ticks == [1] * 6
    for cell in plan_sample(3, 2):
        content = files[cell.relative_path]
        magic, size, offset = struct.unpack_from("<2sI4xI", content, 0)
        _, width, height, planes, bits, compression = struct.unpack_from("<IiiHHI", content, 14)
        assert (magic, size, len(content), offset) == (b"BM", 608_454, 608_454, 54)
        assert (width, height, planes, bits, compression) == (450, 450, 1, 24, 0)
        rows = np.frombuffer(content, np.uint8, offset=54).reshape(450, 1352)[::-1, :1350]
        expected = generate_cell(5, cell.subject_number, cell.cell_index, cell.label)
        np.testing.assert_array_equal(rows.reshape(450, 450, 3)[..., ::-1], expected)


def test_bytes_do_not_depend_on_threads_or_on_what_else_is_generated(tmp_path):
    write_sample(tmp_path / "few", num_subjects=2, cells_per_subject=2, num_threads=1)
    write_sample(tmp_path / "many", num_subjects=4, cells_per_subject=3, num_threads=3)
    few, many = files_below(tmp_path / "few"), files_below(tmp_path / "many")
    assert few.items() <= many.items()


def test_a_stopped_run_is_completed_and_files_that_are_there_stay_untouched(tmp_path):
    write_sample(tmp_path, num_subjects=2, cells_per_subject=2)
    complete = files_below(tmp_path)
    kept, lost = (tmp_path / name for name in sorted(complete)[:2])
    lost.unlink()
    kept_state = kept.stat().st_mtime_ns
    (lost.parent / f"{lost.name}.0123.partial").write_bytes(b"half")
    (tmp_path / "C-NMC_Leukemia" / ".DS_Store").write_bytes(b"")
    write_sample(tmp_path, num_subjects=2, cells_per_subject=2)
    assert complete.items() <= files_below(tmp_path).items()
    assert kept.stat().st_mtime_ns == kept_state


@pytest.mark.parametrize(
    "foreign",
    [
        TRAINING / "fold_0" / "all" / "UID_9_1_1_all.bmp",
        TRAINING / "fold_1" / "hem" / "notes.txt",
        Path("C-NMC_Leukemia") / "validation_data" / "1.bmp",
    ],
)
def test_a_tree_with_other_files_is_refused_and_not_touched(tmp_path, foreign):
    (tmp_path / foreign).parent.mkdir(parents=True)
    (tmp_path / foreign).write_bytes(b"real")
    with pytest.raises(SourceError, match=r"not of this sample.*choose an empty folder"):
        write_sample(tmp_path, num_subjects=2, cells_per_subject=1)
    assert files_below(tmp_path) == {foreign.as_posix(): b"real"}


def test_a_file_with_a_name_of_the_sample_but_other_content_is_refused(tmp_path):
    real = tmp_path / TRAINING / "fold_0" / "all" / "UID_1_1_1_all.bmp"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"real")
    with pytest.raises(SourceError, match="UID_1_1_1_all"):
        write_sample(tmp_path, num_subjects=2, cells_per_subject=1)
    assert files_below(tmp_path) == {real.relative_to(tmp_path).as_posix(): b"real"}


def test_a_link_inside_the_tree_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out" / "C-NMC_Leukemia").mkdir(parents=True)
    try:
        (tmp_path / "out" / TRAINING).symlink_to(tmp_path / "real", target_is_directory=True)
    except OSError:
        pytest.skip("links need a privilege here")
    with pytest.raises(SourceError, match="not of this sample"):
        write_sample(tmp_path / "out", num_subjects=2, cells_per_subject=1)
    assert not any((tmp_path / "real").iterdir())


def test_a_smaller_sample_or_another_seed_is_not_written_over_a_sample(tmp_path):
    write_sample(tmp_path, num_subjects=3, cells_per_subject=1)
    before = files_below(tmp_path)
    for changed in ({"num_subjects": 2}, {"num_subjects": 3, "seed": 1}):
        with pytest.raises(SourceError, match="choose an empty folder"):
            write_sample(tmp_path, cells_per_subject=1, **changed)
    assert files_below(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_one_clear_error(tmp_path):
    (tmp_path / "out").write_text("x", encoding="utf-8")
    with pytest.raises(SourceError, match="cannot write the sample to"):
        write_sample(tmp_path / "out", num_subjects=2, cells_per_subject=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_subjects": 1}, "at least 2 subjects"),
        ({"cells_per_subject": 0}, "at least 1 cell"),
        ({"seed": -1}, "seed of a sample"),
        ({"num_threads": 0}, "at least 1 thread"),
    ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_made(tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        write_sample(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
