from __future__ import annotations

from dataclasses import replace

import pytest

from leukemia_models.reports.evaluation_figures import draw_history
from leukemia_models.reports.style import lay_out
from leukemia_models.training.history import EpochRecord, TrainHistory


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


def test_curves_are_the_history() -> None:
    figure = draw_history(history(4), title="resnet18", stamp="subject-disjoint")
    accuracy, loss = figure.axes
    assert [line.get_label() for line in accuracy.lines] == ["training", "validation", "best epoch (4)"]
    assert list(accuracy.lines[1].get_ydata()) == [0.54, 0.58, 0.62, 0.66]
    assert list(loss.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert list(loss.lines[0].get_ydata()) == [0.7, 0.35, 0.7 / 3, 0.175]


def test_sizes_are_marked_where_they_begin() -> None:
    records = history(4).records
    sized = TrainHistory(
        tuple(replace(record, size_px=px) for record, px in zip(records, (64, 64, 96, 128), strict=True))
    )
    accuracy, loss = draw_history(sized, title="t", stamp="s").axes
    for axes in (accuracy, loss):
        texts = {text.get_text().strip(): text.get_position()[0] for text in axes.texts}
        assert texts == {"64 px": 0.5, "96 px": 2.5, "128 px": 3.5}
        assert [line.get_xdata()[0] for line in axes.lines if line.get_color() == "0.8"] == [0.5, 2.5, 3.5]
    assert accuracy.get_ylim() == draw_history(history(4), title="t", stamp="s").axes[0].get_ylim()


def test_lines_differ_without_colour() -> None:
    accuracy = draw_history(history(3), title="t", stamp="s").axes[0]
    training, validation = accuracy.lines[:2]
    assert training.get_linestyle() != validation.get_linestyle()
    assert training.get_marker() != validation.get_marker()


def test_run_without_validation_has_one_line() -> None:
    figure = draw_history(history(1, validated=False), title="t", stamp="s")
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]


@pytest.mark.parametrize("stamp", ["subject-disjoint", "PATIENT-MIXED"])
def test_curves_are_stamped(stamp: str) -> None:
    figure = draw_history(history(2), title="t", stamp=stamp)
    assert stamp in figure.get_supxlabel()


@pytest.mark.parametrize("num_epochs", [1, 3, 40])
@pytest.mark.parametrize("validated", [True, False])
def test_legends_cover_no_data(num_epochs: int, validated: bool) -> None:
    figure = draw_history(
        history(num_epochs, validated=validated), title="resnet18-no-maxpool", stamp="subject-disjoint"
    )
    lay_out(figure)
    legends = [axes.get_legend().get_window_extent() for axes in figure.axes]
    for axes in figure.axes:
        data = axes.dataLim.transformed(axes.transData)
        assert data.width >= 0
        assert not any(legend.overlaps(data) or legend.overlaps(axes.get_window_extent()) for legend in legends)
    assert not legends[0].overlaps(legends[1])
    assert all(legend.x0 >= 0 and legend.x1 <= figure.bbox.width for legend in legends)
