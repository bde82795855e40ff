from __future__ import annotations

import cv2
import numpy as np
import pytest

from leukemia_data.sources.sample_cells import generate_cell
from leukemia_models.experiments.batchnorm_experiment import CellImages, draw_cells, plan_cells


def test_subjects_of_training_and_validation_differ_and_both_parts_hold_both_classes() -> None:
    train, valid = plan_cells(9, 2, 3)
    subjects = [{(cell.label, cell.subject_number) for cell in part} for part in (train, valid)]
    assert subjects[0].isdisjoint(subjects[1])
    assert len(subjects[0]) + len(subjects[1]) == 9
    assert all({label for label, _ in part} == {0, 1} for part in subjects)
    assert len(train) == 2 * len(subjects[0])
    assert len(valid) == 3 * len(subjects[1])


def test_cells_are_the_generated_ones_cropped_and_shrunk_for_any_number_of_threads() -> None:
    train, _ = plan_cells(3, 2, 1)
    counted: list[int] = []
    one, two = (draw_cells(train, seed=4, size_px=30, num_threads=n, progress=counted.append) for n in (1, 2))
    assert np.array_equal(one.images_NHWC, two.images_NHWC)
    assert sum(counted) == 2 * len(train)
    assert one.labels_N.tolist() == [cell.label for cell in train]
    cell = train[1]
    frame = generate_cell(4, cell.subject_number, cell.cell_index, cell.label)[90:360, 90:360]
    # A 270 px crop to 30 px: plain means of 9 x 9 pixels.
    means = frame.reshape(30, 9, 30, 9, 3).mean(axis=(1, 3))
    assert np.abs(one.images_NHWC[1] - means).max() <= 0.5 + 1e-6
    assert cv2.countNonZero(one.images_NHWC[1, ..., 0]) > 100


def test_normalization_is_that_of_the_pixels() -> None:
    images = np.zeros((2, 2, 2, 3), np.uint8)
    images[0, ..., 0] = 255
    images[..., 0, 1] = 51
    images[1, 0, 0, 2] = 255
    found = CellImages(images, np.array([0, 1])).normalization()
    assert found.mean == pytest.approx((0.5, 0.1, 0.125))
    assert found.std == pytest.approx((0.5, 0.1, (0.125 * 0.875) ** 0.5))
