from __future__ import annotations

import cv2
import numpy as np

from leukemia_data.auditing import audit_pairs as near_duplicates
from leukemia_data.auditing.audit_image import CellPrint, cell_print, oriented
from leukemia_data.auditing.audit_pairs import find_near_pairs


def test_copies_of_all_kinds_are_found_and_nothing_else(rng, make_frame):
    frames = [make_frame(rng, 200, 200) for _ in range(8)]
    jpeg = cv2.imdecode(cv2.imencode(".jpg", frames[2], [cv2.IMWRITE_JPEG_QUALITY, 85])[1], cv2.IMREAD_COLOR)
    copies = [
        np.ascontiguousarray(frames[0][:, ::-1]),
        np.ascontiguousarray(np.rot90(frames[1])),
        np.ascontiguousarray(jpeg),
        np.clip(frames[3] * 1.15, 0, 255).astype(np.uint8),
    ]
    found = find_near_pairs([cell_print(frame) for frame in frames + copies])
    assert [(pair.first, pair.second) for pair in found] == [(0, 8), (1, 9), (2, 10), (3, 11)]
    assert all(pair.correlation > 0.9 for pair in found)
    assert [pair.view == 0 for pair in found] == [False, False, True, True]


def test_any_block_size_finds_the_same(rng, make_frame, monkeypatch):
    frames = [make_frame(rng, 120, 120) for _ in range(6)]
    prints = [cell_print(frame) for frame in [*frames, *frames]]
    expected = find_near_pairs(prints)
    assert [(pair.first, pair.second, pair.distance) for pair in expected] == [(n, n + 6, 0) for n in range(6)]
    monkeypatch.setattr(near_duplicates, "_BLOCK_ENTRIES", 30)
    steps: list[int] = []
    assert find_near_pairs(prints, progress=steps.append) == expected
    assert sum(steps) == 12


def test_distance_is_the_least_over_the_views_and_correlation_that_of_the_best(rng):
    thumbnails = rng.integers(-120, 121, (2, 32, 32)).astype(np.int8)
    thumbnails[1] = oriented(thumbnails[:1], 5)[0]
    hashes = rng.integers(0, 2**63, (2, 8), dtype=np.uint64)
    back = next(view for view in range(8) if np.array_equal(oriented(thumbnails[1:], view)[0], thumbnails[0]))
    hashes[1, back] = hashes[0, 0] ^ np.uint64(0b1011)
    prints = [CellPrint(h, t) for h, t in zip(hashes, thumbnails, strict=True)]
    (pair,) = find_near_pairs(prints, max_distance=3)
    assert (pair.distance, pair.view) == (3, back)
    assert abs(pair.correlation - 1) < 1e-6
    assert find_near_pairs(prints, max_distance=2) == []


def test_equal_hashes_of_unlike_pictures_are_not_confirmed(rng):
    thumbnails = rng.integers(-120, 121, (2, 32, 32)).astype(np.int8)
    hashes = np.zeros((2, 8), np.uint64)
    assert find_near_pairs([CellPrint(h, t) for h, t in zip(hashes, thumbnails, strict=True)]) == []


def test_nothing_to_compare():
    assert find_near_pairs([]) == []
