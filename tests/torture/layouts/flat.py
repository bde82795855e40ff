"""Images without folders of classes: nothing says what they are, or a table in the same folder does."""

from __future__ import annotations

from .draft import Draft
from .layout import Cell


def compose_flat(draft: Draft) -> None:
    """Draw a folder of images into an empty draft; to read its one folder as a class would be wrong."""
    answer = draft.pick("flat")
    num = draft.rng.randint(6, 20)
    folder = "given" if answer == "root" else f"given/{draft.rng.choice(('im', 'images', 'xyc', 'ISIC_Input'))}"
    ends = [draft.rng.choice("01") for _ in range(num)]
    is_named = answer == "label in the name"
    names = [f"Im{n:03d}_{end}" if is_named else f"cell{n}" for n, end in enumerate(ends, 1)]
    truth: list[str | None] = [None] * num
    if "table" in answer:
        # Both classes occur.
        truth = ["blast" if position % 2 else "healthy" for position in range(num)]
        _write_table(draft, answer, folder, names, truth)
    draft.cells = [Cell(f"{folder}/{name}.png", true) for name, true in zip(names, truth, strict=True)]
    draft.doubt("no folders of classes")
    draft.refusable_by += [*names, folder.rpartition("/")[2]] if "table" not in answer else ["labels.csv"]


def _write_table(draft: Draft, answer: str, folder: str, names: list[str], truth: list[str | None]) -> None:
    if answer == "table inside":
        lines = ["Path,label"] + [
            f"{folder.removeprefix('given/')}/{name}.png,{true}" for name, true in zip(names, truth, strict=True)
        ]
    else:
        lines = ["image,healthy,blast"] + [
            f"{name},{int(true == 'healthy')}.0,{int(true == 'blast')}.0"
            for name, true in zip(names, truth, strict=True)
        ]
    draft.files["given/labels.csv"] = "\n".join([*lines, ""]).encode()
