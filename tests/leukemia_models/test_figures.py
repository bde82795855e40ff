from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from matplotlib.figure import Figure

from leukemia_models.figures import draw_confusion, draw_history, save_figure
from leukemia_models.history import EpochRecord, TrainHistory


def history(num_epochs: int, *, validated: bool = True) -> TrainHistory:
    records = []
    for epoch in range(1, num_epochs + 1):
        valid = 0.5 + 0.04 * min(epoch, 6) if validated else None
        records.append(
            EpochRecord(
                epoch=epoch,
                lr=0.01,
                train_loss=0.7 / epoch,
                train_accuracy=1 - 0.5 / epoch,
                valid_loss=0.9 / epoch if validated else None,
                valid_accuracy=valid,
                valid_balanced_accuracy=valid,
                valid_weighted_f1=valid,
                valid_auroc=None,
                seconds=1.0,
                images_per_s=70.0,
            )
        )
    return TrainHistory(tuple(records))


def texts(figure: Figure) -> str:
    found = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return "\n".join(text.get_text() for text in found)


def test_curves_are_the_history() -> None:
    figure = draw_history(history(4), title="resnet18", stamp="subject-disjoint")
    accuracy, loss = figure.axes
    assert [line.get_label() for line in accuracy.lines] == ["training", "validation", "best epoch (4)"]
    assert list(accuracy.lines[1].get_ydata()) == [0.54, 0.58, 0.62, 0.66]
    assert list(loss.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert list(loss.lines[0].get_ydata()) == [0.7, 0.35, 0.7 / 3, 0.175]


def test_lines_differ_without_colour() -> None:
    accuracy = draw_history(history(3), title="t", stamp="s").axes[0]
    training, validation = accuracy.lines[:2]
    assert training.get_linestyle() != validation.get_linestyle()
    assert training.get_marker() != validation.get_marker()


def test_run_without_validation_has_one_line() -> None:
    figure = draw_history(history(1, validated=False), title="t", stamp="s")
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]


@pytest.mark.parametrize("stamp", ["subject-disjoint", "PATIENT-MIXED"])
def test_every_figure_is_stamped(stamp: str) -> None:
    assert stamp in texts(draw_history(history(2), title="t", stamp=stamp))
    assert stamp in texts(draw_confusion(((1, 2), (3, 4)), ("hem", "all"), title="t", stamp=stamp))


def test_confusion_shows_shares_of_rows_and_counts() -> None:
    figure = draw_confusion(((30, 10), (0, 1200)), ("hem", "all"), title="t", stamp="s")
    shown = texts(figure)
    assert "75.0%\n(30)" in shown
    assert "25.0%\n(10)" in shown
    assert "100.0%\n(1,200)" in shown
    assert figure.axes[0].images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 1.0]]


def test_class_without_images_is_no_division_by_zero() -> None:
    assert "none\n(0)" in texts(draw_confusion(((0, 0), (1, 3)), ("hem", "all"), title="t", stamp="s"))


def test_png_is_whole_and_repeatable(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        save_figure(draw_history(history(40), title="resnet18", stamp="PATIENT-MIXED"), path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert cv2.imread(str(paths[0])).shape[1] == 9 * 160
    assert sorted(tmp_path.iterdir()) == paths


def test_judging_modules_load_no_torch_and_no_pyplot() -> None:
    code = (
        "import sys, leukemia_models.report, leukemia_models.figures, leukemia_models.predictions\n"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
