from __future__ import annotations

import numpy as np
import pytest

from leukemia_data.auditing.audit_image import FAULTS, frame_faults, measure_frame, usual_size

SIDE = 100


def disc(
    row: float = 49.5, column: float = 49.5, radius: float = 20.0, value: int = 120, side: int = SIDE
) -> np.ndarray:
    rows, columns = np.ogrid[:side, :side]
    inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return np.where(inside[..., None], np.uint8(value), np.uint8(0)).repeat(3, axis=2)


def kinds(image: np.ndarray, size: tuple[int, int] = (SIDE, SIDE)) -> list[str]:
    return [kind for kind, _ in frame_faults(measure_frame(image), size)]


def test_facts_of_a_centred_disc():
    image = disc()
    facts = measure_frame(image)
    assert facts.size_px == (SIDE, SIDE)
    assert facts.brightest == 120
    assert facts.coverage == pytest.approx((image[..., 0] > 0).mean())
    assert (facts.faint_share, facts.bright_edge, facts.touches_border, facts.num_pieces) == (0, 0, False, 1)
    assert facts.offset == pytest.approx(0, abs=1e-12)


def test_offset_is_the_distance_of_the_centre_of_mass_as_a_fraction_of_the_shorter_side():
    image = np.zeros((60, 100, 3), np.uint8)
    image[10:20, 30:50] = 90
    rows, columns = np.nonzero(image[..., 0])
    expected = np.hypot(rows.mean() - 29.5, columns.mean() - 49.5) / 60
    assert measure_frame(image).offset == pytest.approx(expected)


def test_only_one_channel_counts_too():
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[30:70, 30:70, 1] = 200
    assert measure_frame(image).coverage == pytest.approx(0.16)


def test_a_cell_in_its_place_has_no_fault():
    assert kinds(disc()) == []
    assert kinds(disc(row=55, column=44)) == []


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.zeros((SIDE, SIDE, 3), np.uint8), ["black"]),
        (disc(value=30), ["black"]),
        (disc(radius=4), ["black"]),
        (disc(row=25), ["off_centre"]),
        (disc(radius=50), ["border"]),
        (disc(row=10), ["border", "off_centre"]),
        (np.maximum(disc(column=38, radius=10), disc(column=62, radius=9)), ["pieces"]),
        (np.maximum(disc(), np.uint8(3)), ["background"]),
        (np.maximum(disc(), np.uint8(90)), ["background"]),
        (disc(side=120, row=59.5, column=59.5), ["other_size"]),
    ],
    ids=["black", "dark", "speck", "off centre", "to the edge", "cut", "two", "faint", "grey", "size"],
)
def test_faults(image, expected):
    assert kinds(image) == expected
    assert set(expected) <= FAULTS.keys()


def test_a_speck_beside_the_cell_is_no_piece():
    image = disc()
    image[5, 5] = 100
    assert kinds(image) == []


def test_usual_size_is_that_of_most_frames():
    frames = [measure_frame(np.zeros(size, np.uint8)) for size in [(4, 6, 3), (4, 6, 3), (9, 9, 3)]]
    assert usual_size(frames) == (4, 6)
    assert usual_size(frames[1:]) == (9, 9)
    assert usual_size([]) is None
