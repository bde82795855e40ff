from __future__ import annotations

import itertools

import numpy as np
import pytest

from leukemia_data.scanning.preview import SheetRow, sheet_figure

LONG = "C-NMC_training_data_fold_0_all_UID_57_29_1_all_recropped_and_normalised_by_the_lab.bmp"
CLASS = "Acute lymphoblastic leukaemia, early pre-B, untreated"


@pytest.mark.parametrize(
    ("name", "class_name", "step"), [("UID_1_1_1_all.bmp", "all", "crop 224 px"), (LONG, CLASS, LONG)]
)
def test_names_cover_neither_pictures_nor_one_another(name: str, class_name: str, step: str) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    rows = [SheetRow(class_name, f"folder/{name}", ((step, pixels), (step, pixels), (step, pixels))) for _ in range(2)]
    figure = sheet_figure(rows, "a title")
    figure.canvas.draw()
    pictures = [axes.get_window_extent() for axes in figure.axes]
    names = [
        text.get_window_extent()
        for axes in figure.axes
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label)
        if text.get_text()
    ]
    assert len(names) == 3 + 2 + 2
    assert not any(one.overlaps(other) for one, other in itertools.combinations([*pictures, *names], 2))
    assert all(figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1 for extent in names)
    assert all(figure.bbox.y0 <= extent.y0 and extent.y1 <= figure.bbox.y1 for extent in names)
