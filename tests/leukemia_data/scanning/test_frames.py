"""Sizes, modes and backgrounds of frames by class, compared with generated images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from leukemia_data.decoding.decode import decode_frame
from leukemia_data.records.record import Record
from leukemia_data.scanning.frame_finding import measure_ground, read_traits
from leukemia_data.scanning.scan import FRAMES_A_CLASS, MIN_DECODED, look_at_records, with_frames
from leukemia_data.sources.reading import FramesFound
from leukemia_data.sources.source import list_source


def frames(root: Path) -> dict[str, FramesFound]:
    return {found.class_name: found for found in with_frames(list_source([root])).reading.frames}


def save(path: Path, mode: str, size_px: tuple[int, int], level: int = 0, **options) -> None:
    """A picture of height and width with a bright spot in the middle of an even ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size_px
    picture = PillowImage.new("RGB", (width, height), (level, level, level))
    picture.paste((200, 30, 90), (width // 3, height // 3, width // 2, height // 2))
    picture.convert(mode).save(path, **options)


def test_sizes_modes_and_ground_by_class(tmp_path):
    for number in range(3):
        save(tmp_path / "blast" / f"{number}.png", "RGB", (30, 40))
    save(tmp_path / "blast" / "9.png", "L", (50, 40))
    save(tmp_path / "normal" / "0.jpg", "RGB", (64, 48), 240)
    save(tmp_path / "normal" / "1.bmp", "RGB", (64, 48), 230)
    save(tmp_path / "NA" / "1.tif", "RGB", (20, 20), 50)
    found = frames(tmp_path)
    assert found == {
        "blast": FramesFound(
            class_name="blast",
            num_looked_at=4,
            sizes=((30, 40, 3), (50, 40, 1)),
            modes=(("RGB", 3), ("L", 1)),
            ground="black",
        ),
        "normal": FramesFound(
            class_name="normal", num_looked_at=2, sizes=((64, 48, 2),), modes=(("RGB", 2),), ground="bright"
        ),
        "": FramesFound(class_name="", num_looked_at=1, sizes=((20, 20, 1),), modes=(("RGB", 1),), ground="grey"),
    }
    # Unlabelled ones come last.
    assert list(found) == ["blast", "normal", ""]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_the_upright_picture(tmp_path, suffix, orientation):
    exif = PillowImage.Exif()
    exif[274] = orientation
    path = tmp_path / f"0{suffix}"
    save(path, "RGB", (30, 50), 200, exif=exif)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    height, width, _ = decode_frame(data).shape
    assert read_traits(path).size_px == read_traits(data).size_px == (height, width)
    assert (height, width) == ((30, 50) if orientation < 5 else (50, 30))


def test_unreadable_files_are_tried_and_ignored(tmp_path):
    save(tmp_path / "blast" / "1.png", "RGB", (30, 40))
    (tmp_path / "blast" / "2.png").write_bytes(b"no image")
    (tmp_path / "normal").mkdir()
    (tmp_path / "normal" / "1.bmp").write_bytes(b"")
    found = frames(tmp_path)
    assert (found["blast"].num_looked_at, found["blast"].sizes) == (2, ((30, 40, 1),))
    assert (found["normal"].sizes, found["normal"].modes, found["normal"].ground) == ((), (), "")
    assert found["normal"].describe() == "normal unreadable "


def test_a_sample_of_each_class_is_looked_at(tmp_path, write_tree):
    num = FRAMES_A_CLASS + 9
    write_tree(tmp_path, *(f"blast/{n}.png" for n in range(num)), "normal/1.png")
    found = frames(tmp_path)
    assert (found["blast"].num_looked_at, found["normal"].num_looked_at) == (FRAMES_A_CLASS, 1)
    assert found == frames(tmp_path)


def test_the_listing_keeps_what_was_seen(tmp_path, write_tree):
    listing = list_source([write_tree(tmp_path, "blast/1.png", "normal/1.png")])
    seen = with_frames(listing)
    assert seen.records is listing.records
    assert [found.class_name for found in seen.reading.frames] == ["blast", "normal"]
    assert any("2x3 RGB, black ground (2 of 2 looked at)" in line for line in seen.reading.lines())


@pytest.mark.parametrize(("level", "ground"), [(0, "black"), (8, "black"), (9, "grey"), (95, "grey"), (96, "bright")])
def test_the_ground_is_that_of_the_border(level, ground):
    frame = np.full((20, 30, 3), 255 - level, np.uint8)
    frame[0] = frame[-1] = level
    frame[:, 0] = frame[:, -1] = level
    assert measure_ground(frame).name == ground


def test_a_cell_that_touches_the_border_is_not_the_ground(make_frame: Callable, rng: np.random.Generator):
    frame = make_frame(rng, 60, 60)
    rolled = np.roll(frame, 25, axis=0)
    edge = np.array([pixel for row in rolled[[0, -1]] for pixel in row] + list(rolled[1:-1, [0, -1]].reshape(-1, 3)))
    ground = measure_ground(rolled)
    assert (ground.name, ground.rgb) == ("black", (0, 0, 0))
    assert ground.black_share == pytest.approx((edge.max(axis=1) == 0).mean())
    assert 0.5 < ground.black_share < 1
    assert (measure_ground(255 - frame).name, measure_ground(255 - frame).rgb) == ("bright", (255, 255, 255))
    assert measure_ground(np.zeros((1, 1, 3), np.uint8)).name == "black"


def test_the_ground_has_a_colour_and_a_spread():
    frame = np.zeros((30, 40, 3), np.uint8)
    frame[:] = (230, 200, 210)
    assert measure_ground(frame).rgb == (230, 200, 210)
    assert measure_ground(frame).spread == 0
    frame[:, :20] = (100, 100, 90)
    assert measure_ground(frame).spread == 130


def records_of(*names: str, subjects: dict[str, str] | None = None) -> list[Record]:
    return [Record(record_id=name, path=Path(name), subject=(subjects or {}).get(name, "")) for name in names]


def chosen_ids(records: list[Record], most: int) -> list[str]:
    return [record.record_id for record, _ in look_at_records(records, most)]


def test_the_sample_is_spread_over_folders_and_subjects():
    crowd = [f"a/{n:03}.png" for n in range(90)]
    few = ["b/1.png", "c/1.png", "c/2.png"]
    chosen = chosen_ids(records_of(*crowd, *few), 12)
    assert set(few) < set(chosen)
    # What is left is spread evenly over the crowd, and nothing is out of order.
    assert [name for name in chosen if name in crowd] == [f"a/{n:03}.png" for n in range(0, 90, 10)]
    of_two = {name: f"P{n // 80}" for n, name in enumerate(crowd)}
    assert [of_two[name] for name in chosen_ids(records_of(*crowd, subjects=of_two), 8)] == ["P0"] * 4 + ["P1"] * 4
    of_each = {name: name for name in crowd}
    assert chosen_ids(records_of(*crowd, subjects=of_each), 9) == [f"a/{n:03}.png" for n in range(0, 90, 10)]
    assert chosen_ids(records_of(*crowd), 500) == crowd


def test_large_frames_are_decoded_in_part_and_the_others_known_by_their_headers(tmp_path):
    for number in range(12):
        save(tmp_path / f"{number}.png", "L", (2000, 2000))
    looks = [
        traits
        for _, traits in look_at_records(records_of(*(str(tmp_path / f"{n}.png") for n in range(12))), share=0.02)
    ]
    assert [traits.size_px for traits in looks] == [(2000, 2000)] * 12
    assert sum(traits.ground is not None for traits in looks) == MIN_DECODED
