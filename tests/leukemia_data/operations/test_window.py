from __future__ import annotations

import numpy as np
import pytest

from leukemia_data.operations.operation import Window
from leukemia_data.operations.resizing import CenterCrop

FRAME = np.arange(100).reshape(10, 10)


def mask_of(window: Window) -> np.ndarray:
    mask = np.zeros((10, 10), bool)
    mask[window.top : window.bottom, window.left : window.right] = True
    return mask


def test_size():
    window = Window(2, 3, 7, 4)
    assert (window.height, window.width) == (5, 1)
    assert Window.full(10) == Window(0, 0, 10, 10)


@pytest.mark.parametrize(("side", "crop", "first"), [(10, 4, 3), (10, 5, 2), (9, 4, 2), (9, 9, 0), (450, 270, 90)])
def test_a_centre_crop_leaves_the_odd_pixel_below_and_right(side, crop, first):
    window = CenterCrop(side_px=crop).needed(Window.full(crop), side, crop)
    assert window == Window(first, first, first + crop, first + crop)
    assert side - window.bottom - window.top in (0, 1)


def test_cut_of_the_whole_frame():
    np.testing.assert_array_equal(Window(2, 3, 4, 6).cut(FRAME, Window.full(10)), [[23, 24, 25], [33, 34, 35]])


def test_cut_of_a_part_is_the_same_pixels():
    held = Window(1, 2, 9, 8)
    part = held.cut(FRAME, Window.full(10))
    window = Window(2, 3, 4, 6)
    np.testing.assert_array_equal(window.cut(part, held), window.cut(FRAME, Window.full(10)))


def test_cut_is_a_view():
    assert np.shares_memory(Window(2, 3, 4, 6).cut(FRAME, Window.full(10)), FRAME)


@pytest.mark.parametrize("window", [Window(0, 2, 4, 6), Window(1, 1, 4, 6), Window(1, 2, 10, 6), Window(1, 2, 4, 9)])
def test_cut_of_what_is_not_held_is_an_error(window):
    held = Window(1, 2, 9, 8)
    with pytest.raises(ValueError, match="outside"):
        window.cut(held.cut(FRAME, Window.full(10)), held)


def test_grown_stops_at_the_frame():
    assert Window(3, 4, 6, 7).grown(2, 10) == Window(1, 2, 8, 9)
    assert Window(1, 4, 6, 9).grown(2, 10) == Window(0, 2, 8, 10)
    assert Window(3, 4, 6, 7).grown(0, 10) == Window(3, 4, 6, 7)


def test_union_holds_both_and_no_row_or_column_more():
    first, second = Window(1, 5, 3, 7), Window(2, 2, 9, 6)
    union = first.union(second)
    both = mask_of(first) | mask_of(second)
    assert (mask_of(union) >= both).all()
    assert mask_of(union).any(axis=1).tolist() == both.any(axis=1).tolist()
    assert mask_of(union).any(axis=0).tolist() == both.any(axis=0).tolist()


def test_shifted():
    assert Window(1, 2, 3, 4).shifted(5) == Window(6, 7, 8, 9)
    assert Window(6, 7, 8, 9).shifted(-5) == Window(1, 2, 3, 4)
