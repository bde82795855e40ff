"""Names of the image files in a tree of folders."""

from __future__ import annotations

from .draft import Draft
from .layout import Cell
from .tree_levels import Step


class FileNamer:
    """Names files as the drawn answers say, each once in its folder."""

    def __init__(self, draft: Draft) -> None:
        self._form = draft.pick("file names")
        self._ending = draft.pick("ending")
        self._rng = draft.rng
        self._names_person = draft.choices["people"] == "in file names"
        self._num_in: dict[str, int] = {}
        self._num = 0

    def cell(self, folder: str, way: dict[str, Step], *, is_labelled: bool) -> Cell:
        """The next image of a folder (``/`` at the end), with what the folders above it mean."""
        number = self._num_in[folder] = self._num_in.get(folder, 0) + 1
        self._num += 1
        person = way["person"].meaning if "person" in way else None
        name = self._name(number, way["class"].name)
        if self._names_person:
            split = way["split"].position if "split" in way else 0
            person = f"C{10 * split + 30 * way['class'].position + number % 2}"
            name = f"{person}_{name}"
        split_name = way["split"].meaning if "split" in way else None
        return Cell(f"{folder}{name}", way["class"].meaning if is_labelled else None, person, split_name)

    def _name(self, number: int, class_name: str) -> str:
        stem = {
            "numbers": f"{number}",
            "padded": f"img_{number:04d}",
            "class first": f"{class_name}-{number:03d}",
            "spaced": f"{class_name} ({number})",
            "hexadecimal": f"{self._rng.getrandbits(48):012x}",
        }.get(self._form, f"{self._num}")
        ending = self._rng.choice((".png", ".JPG", ".tiff", ".bmp")) if self._ending == "mixed" else self._ending
        return stem + ending
