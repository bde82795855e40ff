"""Cells of known people: images that are really of one person, whatever their files and tables say."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
CLASSES = ("hem", "all")
PEOPLE_PER_CLASS = 6
CELLS_PER_PERSON = 3
SIDE_PX = 96


@dataclass(frozen=True, eq=False)
class Cell:
    """One image.

    Attributes
    ----------
    name
        Of its file.
    person, original
        The truth: whose cell it is, and which photograph of it, whatever was done to the file since.
    label, subject, split
        What the table says.
    pixels
        Of shape (96, 96, 3), RGB.
    """

    name: str
    person: str
    original: int
    label: str
    subject: str
    pixels: Pixels
    split: str = ""


def draw_people(chance: random.Random, first: int = 0) -> list[Cell]:
    """Draw people of both classes with some cells each; `first` numbers them, so that two worlds can differ."""
    cells = []
    for number in range(first, first + 2 * PEOPLE_PER_CLASS):
        person, label = f"p{number}", CLASSES[number % 2]
        for cell in range(CELLS_PER_PERSON):
            original = number * CELLS_PER_PERSON + cell
            cells.append(Cell(f"{person}_{cell}.png", person, original, label, person, draw_cell(chance)))
    return cells


def draw_cell(chance: random.Random) -> Pixels:
    """Draw a textured ellipse on black."""
    rng = np.random.default_rng(chance.getrandbits(63))
    small = rng.integers(40, 230, (9, 9, 3), dtype=np.uint8)
    texture = cv2.resize(small, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    texture = (texture + rng.integers(-8, 9, texture.shape)).clip(1, 255)
    rows, columns = np.ogrid[:SIDE_PX, :SIDE_PX]
    centre, radius = SIDE_PX * rng.uniform(0.45, 0.55, 2), SIDE_PX * rng.uniform(0.25, 0.36, 2)
    inside = ((rows - centre[0]) / radius[0]) ** 2 + ((columns - centre[1]) / radius[1]) ** 2 < 1
    return np.asarray(np.where(inside[..., None], texture, 0), np.uint8)


Change = Callable[[Pixels, random.Random], Pixels]


def same(pixels: Pixels, chance: random.Random) -> Pixels:
    """Change nothing."""
    return pixels


def turned(pixels: Pixels, chance: random.Random) -> Pixels:
    """Turn by quarters and mirror: one of seven ways, never none."""
    turns, mirrors = chance.choice([(t, m) for t in range(4) for m in (False, True)][1:])
    found = np.rot90(pixels, turns)
    return np.ascontiguousarray(found[:, ::-1] if mirrors else found)


def retouched(pixels: Pixels, chance: random.Random) -> Pixels:
    """Change 27 to 40 pixels of the cell a little, as two pairs of the published set differ."""
    found = pixels.copy()
    rows, columns = np.nonzero(pixels.max(axis=2))
    for place in chance.sample(range(len(rows)), chance.randint(27, 40)):
        value = found[rows[place], columns[place]].astype(np.int64) + chance.randint(-30, 30)
        found[rows[place], columns[place]] = value.clip(1, 255)
    return found


def brighter(pixels: Pixels, chance: random.Random) -> Pixels:
    """Add a little to every pixel of the cell."""
    added = (pixels.astype(np.int64) + chance.randint(2, 6)).clip(0, 255)
    return np.asarray(np.where(pixels.max(axis=2, keepdims=True) > 0, added, 0), np.uint8)


def turned_and_retouched(pixels: Pixels, chance: random.Random) -> Pixels:
    """Do both."""
    return retouched(turned(pixels, chance), chance)


CHANGES: tuple[Change, ...] = (same, turned, retouched, brighter, turned_and_retouched)


def copies_of(
    cells: Sequence[Cell], chance: random.Random, change: Change, *, prefix: str, subject: str = ""
) -> list[Cell]:
    """Copy cells under other names (and a subject of their own); who they really are stays."""
    return [
        replace(
            cell,
            name=f"{prefix}_{number}.png",
            subject=subject or cell.subject,
            pixels=change(cell.pixels, chance),
        )
        for number, cell in enumerate(cells)
    ]


def of_person(cells: Iterable[Cell], person: str) -> list[Cell]:
    """All cells of one person."""
    return [cell for cell in cells if cell.person == person]


def some_person(cells: Sequence[Cell], chance: random.Random) -> str:
    """Draw one of the people."""
    return chance.choice(sorted({cell.person for cell in cells}))


def write_source(cells: Sequence[Cell], folder: Path, name: str = "cells") -> Path:
    """Write image files and a table of them; files that are there already are replaced.

    Returns
    -------
    Path
        The table: ``Path,label,subject`` and, where a cell has one, ``split``.
    """
    images = folder / name
    images.mkdir(parents=True, exist_ok=True)
    has_splits = any(cell.split for cell in cells)
    table = folder / f"{name}.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Path", "label", "subject", *(["split"] if has_splits else [])])
        for cell in cells:
            data = cv2.imencode(".png", cell.pixels[..., ::-1])[1].tobytes()
            path = images / cell.name
            if not path.is_file() or path.read_bytes() != data:
                path.write_bytes(data)
            writer.writerow([f"{name}/{cell.name}", cell.label, cell.subject, *([cell.split] if has_splits else [])])
    return table
