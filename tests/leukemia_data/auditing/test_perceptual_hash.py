from __future__ import annotations

import cv2
import numpy as np
import pytest

from leukemia_data.auditing.audit_image import VIEWS, cell_print, oriented


def distance(a: np.uint64, b: np.uint64) -> int:
    return bin(int(a) ^ int(b)).count("1")


@pytest.fixture
def frame(rng, make_frame):
    return make_frame(rng)


def test_hash_holds_the_signs_of_the_low_frequencies_of_the_thumbnail(frame):
    scipy_fft = pytest.importorskip("scipy.fft")
    printed = cell_print(frame)
    frequencies = scipy_fft.dctn(printed.thumbnail / 60.0, norm="ortho")[1:9, 1:9].ravel()
    # Rounding to whole numbers may turn the sign of what is nearly zero.
    sure = np.abs(frequencies) > 0.2
    assert sure.sum() > 40
    bits = np.array([(int(printed.hashes[0]) >> bit) & 1 for bit in range(64)], bool)
    np.testing.assert_array_equal(bits[sure], frequencies[sure] > 0)


@pytest.mark.parametrize("view", range(8))
def test_each_view_is_the_hash_of_the_turned_picture(frame, view):
    transpose, mirror_rows, mirror_columns = VIEWS[view]
    turned = frame.transpose(1, 0, 2) if transpose else frame
    turned = turned[:: -1 if mirror_rows else 1, :: -1 if mirror_columns else 1]
    seen = cell_print(np.ascontiguousarray(turned))
    assert distance(seen.hashes[0], cell_print(frame).hashes[view]) <= 2
    expected = oriented(cell_print(frame).thumbnail[None], view)[0]
    assert np.corrcoef(seen.thumbnail.ravel(), expected.ravel())[0, 1] > 0.95


def test_place_and_light_do_not_count(frame):
    moved = np.roll(frame, (15, -20), axis=(0, 1))
    darker = (frame * 0.7).astype(np.uint8)
    smaller = cv2.resize(frame, (300, 300), interpolation=cv2.INTER_AREA)
    for other in (moved, darker, smaller):
        assert distance(cell_print(frame).hashes[0], cell_print(other).hashes[0]) <= 4


def test_different_cells_differ_in_about_half_of_the_bits(rng, make_frame):
    hashes = [cell_print(make_frame(rng)).hashes[0] for _ in range(12)]
    distances = [distance(a, b) for number, a in enumerate(hashes) for b in hashes[:number]]
    assert 26 < np.mean(distances) < 38
    assert min(distances) > 12


@pytest.mark.parametrize("shape", [(450, 450, 3), (1, 1, 3)])
def test_nothing_to_see(shape):
    assert cell_print(np.zeros(shape, np.uint8)) is None


def test_flat_and_tiny_cells_have_no_print(rng):
    flat = np.zeros((60, 60, 3), np.uint8)
    flat[20:40, 20:40] = 120
    assert cell_print(flat) is None
    tiny = np.zeros((60, 60, 3), np.uint8)
    tiny[20:26, 20:40] = rng.integers(50, 200, (6, 20, 3))
    assert cell_print(tiny) is None
