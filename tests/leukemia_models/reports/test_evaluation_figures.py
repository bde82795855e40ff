from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples
from leukemia_models.evaluation.resampling import Interval
from leukemia_models.evaluation.subject_level import subject_table
from leukemia_models.reports.evaluation_figures import draw_confusion, draw_reliability, draw_roc, draw_subjects
from leukemia_models.reports.style import lay_out

CLASSES = ("hem", "all")
NAMED = {"title": "resnet18", "stamp": "PATIENT-MIXED"}


def texts(figure: Figure) -> str:
    found = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return "\n".join(text.get_text() for text in found)


@pytest.fixture
def samples() -> EvaluatedSamples:
    """Two subjects a class with two images each; one image of each class is on the wrong side of 0.5."""
    subjects = ("H1", "H1", "H2", "H2", "1", "1", "2", "2")
    labels = np.repeat([0, 1], 4)
    probabilities = np.array([0.1, 0.2, 0.3, 0.8, 0.4, 0.9, 0.7, 0.6])
    return EvaluatedSamples(tuple("abcdefgh"), subjects, labels, probabilities)


def test_every_figure_is_stamped(samples: EvaluatedSamples) -> None:
    figures = [
        draw_confusion(((1, 2), (3, 4)), CLASSES, **NAMED),
        draw_roc(samples, CLASSES, **NAMED),
        draw_reliability(samples, CLASSES, **NAMED),
        draw_subjects(subject_table(samples), CLASSES, **NAMED),
    ]
    assert all("PATIENT-MIXED" in figure.get_supxlabel() for figure in figures)
    assert all(figure.get_suptitle() == "resnet18" for figure in figures)


def test_confusion_shows_fractions_of_rows_and_counts() -> None:
    figure = draw_confusion(((30, 10), (0, 1200)), CLASSES, **NAMED)
    shown = texts(figure)
    assert "75.0%\n(30)" in shown
    assert "25.0%\n(10)" in shown
    assert "100.0%\n(1,200)" in shown
    assert figure.axes[0].images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 1.0]]


def test_class_without_images_is_no_division_by_zero() -> None:
    assert "none\n(0)" in texts(draw_confusion(((0, 0), (1, 3)), CLASSES, **NAMED))


def test_roc_by_hand(samples: EvaluatedSamples) -> None:
    figure = draw_roc(samples, CLASSES, interval=Interval(0.5, 0.9), **NAMED)
    [axes] = figure.axes
    curve, mark = axes.lines[:2]
    # Falling scores: 1 1 0(.8) 1 1 1(.4) 0 0 0 -> 3 of 4 positives stand above all but one negative, ...
    assert list(curve.get_xdata()) == [0, 0, 0.25, 0.25, 0.25, 0.25, 0.5, 0.75, 1]
    assert list(curve.get_ydata()) == [0, 0.25, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    # At 0.5: one of four negatives and three of four positives are called positive.
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([0.25], [0.75])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "per image, AUROC 0.812 (0.500 - 0.900)" in labels
    assert "per subject (mean probability), AUROC 1.000" in labels


def test_roc_of_subjects_of_one_class_is_left_out(samples: EvaluatedSamples) -> None:
    unknown = EvaluatedSamples(samples.ids, ("",) * 8, samples.labels_N, samples.probabilities_N)
    labels = [text.get_text() for text in draw_roc(unknown, CLASSES, **NAMED).axes[0].get_legend().get_texts()]
    assert not any("subject" in label for label in labels)


def test_no_image_above_the_threshold_is_drawn_too(samples: EvaluatedSamples) -> None:
    low = samples.with_probabilities(samples.probabilities_N / 4)
    mark = draw_roc(low, CLASSES, **NAMED).axes[0].lines[1]
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([0], [0])


def test_reliability_shows_both_series_and_counts(samples: EvaluatedSamples) -> None:
    calibrated = samples.with_probabilities(samples.probabilities_N**2)
    axes, counts_axes = draw_reliability(samples, CLASSES, calibrated=calibrated, **NAMED).axes
    labels = [line.get_label() for line in axes.lines]
    assert labels[1].startswith("as trained, ECE ")
    assert labels[2].startswith("calibrated, ECE ")
    assert axes.lines[1].get_linestyle() != axes.lines[2].get_linestyle()
    assert list(axes.lines[1].get_xdata()) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    assert list(axes.lines[1].get_ydata()) == [0, 0, 0, 1, 1, 1, 0, 1]
    assert [patch.get_data().values.sum() for patch in counts_axes.patches] == [8, 8]


def test_subjects_are_sorted_within_their_class(samples: EvaluatedSamples) -> None:
    [axes] = draw_subjects(subject_table(samples), CLASSES, **NAMED).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["H2 (2)", "H1 (2)", "1 (2)", "2 (2)"]
    hem, all_ = axes.lines[:2]
    assert (list(hem.get_xdata()), list(all_.get_xdata())) == ([0.5, 1], [0.5, 1])
    assert hem.get_marker() != all_.get_marker()


def make_many(rng: np.random.Generator, num_subjects: int) -> EvaluatedSamples:
    labels = np.arange(3 * num_subjects) % num_subjects % 2
    subjects = tuple(f"$x_{label}{number % num_subjects}" for number, label in enumerate(labels))
    return EvaluatedSamples(tuple(map(str, range(len(labels)))), subjects, labels, rng.random(len(labels)))


def test_a_cohort_fits_on_a_printed_page_with_every_name(rng: np.random.Generator) -> None:
    figure = draw_subjects(subject_table(make_many(rng, 80)), CLASSES, **NAMED)
    figure.draw_without_rendering()
    assert figure.get_figheight() <= 11
    labels = [label for axes in figure.axes for label in axes.get_yticklabels()]
    assert len({label.get_text() for label in labels}) == 80
    assert min(label.get_fontsize() for label in labels) >= 7
    extents = [[label.get_window_extent() for label in axes.get_yticklabels()] for axes in figure.axes]
    assert not any(one.overlaps(other) for column in extents for one, other in itertools.pairwise(column))


def test_thousands_of_subjects_are_drawn_without_names(rng: np.random.Generator) -> None:
    figure = draw_subjects(subject_table(make_many(rng, 2000)), CLASSES, **NAMED)
    assert figure.get_figheight() <= 11
    assert not any(axes.get_yticklabels() for axes in figure.axes)
    assert sum(len(line.get_xdata()) for axes in figure.axes for line in axes.lines[:1]) == 2000


def test_a_subject_with_both_labels_is_drawn_by_itself(samples: EvaluatedSamples) -> None:
    mixed = EvaluatedSamples(
        samples.ids, ("H1", "H1", "x", "x", "x", "1", "2", "2"), samples.labels_N, samples.probabilities_N
    )
    assert "both classes (n = 1)" in texts_of_legends(draw_subjects(subject_table(mixed), CLASSES, **NAMED))


def texts_of_legends(figure: Figure) -> list[str]:
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [text.get_text() for legend in legends if legend is not None for text in legend.get_texts()]


LONG = (
    "Healthy donors from the reference laboratory (control)",
    "Acute lymphoblastic leukaemia, early pre-B, untreated",
)


@pytest.mark.parametrize("classes", [CLASSES, LONG])
def test_names_fit_and_legends_cover_nothing(classes: tuple[str, str], samples: EvaluatedSamples) -> None:
    for figure in (
        draw_confusion(((1, 2), (3, 4)), classes, **NAMED),
        draw_roc(samples, classes, interval=Interval(0.5, 0.9), **NAMED),
        draw_reliability(samples, classes, calibrated=samples, **NAMED),
        draw_subjects(subject_table(samples), classes, **NAMED),
    ):
        lay_out(figure)
        figure.draw_without_rendering()
        for axes in figure.axes:
            low, high = axes.get_xlim()
            inside = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
            ticks = [label.get_window_extent() for label in inside if label.get_text()]
            assert not any(one.overlaps(other) for one, other in itertools.pairwise(ticks))
            shown = [*ticks, axes.xaxis.label.get_window_extent(), axes.yaxis.label.get_window_extent()]
            if axes.get_legend() is not None:
                extent = axes.get_legend().get_window_extent()
                shown.append(extent)
                assert extent.y0 >= axes.get_window_extent().y1 - 1
            assert min(extent.x0 for extent in shown) >= 0
            assert max(extent.x1 for extent in shown) <= figure.bbox.width + 1
            assert all(extent.y0 >= 0 and extent.y1 <= figure.bbox.height + 1 for extent in shown)
            stamp = figure.texts[-1].get_window_extent()
            assert not any(extent.overlaps(stamp) for extent in shown)
