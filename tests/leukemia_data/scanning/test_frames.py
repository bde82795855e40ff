"""Sizes, modes and ground of frames by class, against images made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from leukemia_data.pixels.decode import decode_frame
from leukemia_data.scanning.frames import DECODED_A_CLASS, HEADERS_A_CLASS, ground_of, look_at_frames, with_frames
from leukemia_data.sources.reading import FramesFound
from leukemia_data.sources.source import list_source


def frames(root: Path) -> dict[str, FramesFound]:
    return {found.class_name: found for found in look_at_frames(list_source([root]))}


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
    for number in range(DECODED_A_CLASS + 2):
        save(tmp_path / "blast" / f"{number}{suffix}", "RGB", (30, 50), 200, exif=exif)
    height, width, _ = decode_frame(np.frombuffer((tmp_path / "blast" / f"0{suffix}").read_bytes(), np.uint8)).shape
    assert frames(tmp_path)["blast"].sizes == ((height, width, DECODED_A_CLASS + 2),)
    assert (height, width) == ((30, 50) if orientation < 5 else (50, 30))


def test_unreadable_files_are_looked_at_and_tell_nothing(tmp_path):
    save(tmp_path / "blast" / "1.png", "RGB", (30, 40))
    (tmp_path / "blast" / "2.png").write_bytes(b"no image")
    (tmp_path / "normal").mkdir()
    (tmp_path / "normal" / "1.bmp").write_bytes(b"")
    found = frames(tmp_path)
    assert (found["blast"].num_looked_at, found["blast"].sizes) == (2, ((30, 40, 1),))
    assert (found["normal"].sizes, found["normal"].modes, found["normal"].ground) == ((), (), "")
    assert found["normal"].describe() == "normal unreadable "


def test_a_sample_of_each_class_is_looked_at(tmp_path, write_tree):
    num = HEADERS_A_CLASS + 9
    write_tree(tmp_path, *(f"blast/{n}.png" for n in range(num)), "normal/1.png")
    found = frames(tmp_path)
    assert (found["blast"].num_looked_at, found["normal"].num_looked_at) == (HEADERS_A_CLASS, 1)
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
    assert ground_of(frame) == ground


def test_a_cell_that_touches_the_border_is_not_the_ground(make_frame: Callable, rng: np.random.Generator):
    frame = make_frame(rng, 60, 60)
    assert ground_of(np.roll(frame, 25, axis=0)) == "black"
    assert ground_of(255 - frame) == "bright"
    assert ground_of(np.zeros((1, 1, 3), np.uint8)) == "black"
