"""How often do 95 % intervals hold the true value? Simulated cohorts in, the table of docs/evaluation.md out.

A subject's share of right cells follows a beta distribution with mean 0.8 and standard deviation 0.2, in both classes,
so the true balanced accuracy is 0.8. Every cohort gets an interval from resampled subjects, as `ltrain` draws it, and
one from resampled images.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_models.evaluation.bootstrap import confusion_metrics
from leukemia_models.evaluation.resampling import BootstrapSettings, SubjectGroups, percentile_interval
from leukemia_models.reports.style import markdown_table

TRUE_VALUE, SPREAD = 0.8, 0.2
SUBJECTS_PER_CLASS = (3, 4, 5, 7, 10, 15, 20, 30, 50)
METRIC = "balanced_accuracy"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """Intervals of one size of cohort: the share that hold the true value, and their mean width."""

    share: float
    width: float

    @classmethod
    def of(cls, intervals: list[tuple[float, float]]) -> Coverage:
        """Summarise intervals as (low, high)."""
        low, high = np.array(intervals).T
        return cls(float(np.mean((low <= TRUE_VALUE) & (high >= TRUE_VALUE))), float(np.mean(high - low)))


def simulate(
    num_subjects: int, num_cells: int, num_cohorts: int, num_draws: int, seed: int
) -> tuple[Coverage, Coverage]:
    """Return the coverage of intervals by subjects and by images, for cohorts of `num_subjects` a class."""
    generator = np.random.default_rng((seed, num_subjects))
    concentration = TRUE_VALUE * (1 - TRUE_VALUE) / SPREAD**2 - 1
    shapes = TRUE_VALUE * concentration, (1 - TRUE_VALUE) * concentration
    by_subjects, by_images = [], []
    for cohort in range(num_cohorts):
        settings = BootstrapSettings(num_draws=num_draws, seed=cohort)
        right_KS = generator.binomial(num_cells, generator.beta(*shapes, size=(2, num_subjects)))
        by_subjects.append(_interval(_subject_draws(right_KS, num_cells, settings), settings))
        by_images.append(_interval(_image_draws(right_KS.sum(axis=1), num_subjects * num_cells, settings), settings))
    return Coverage.of(by_subjects), Coverage.of(by_images)


def _subject_draws(right_KS: npt.NDArray[np.int64], num_cells: int, settings: BootstrapSettings) -> Floats:
    """Draw subjects as for a report; return how many cells of each class each draw has right: (D,2), as a share."""
    num_subjects = right_KS.shape[1]
    groups = SubjectGroups(np.arange(2 * num_subjects), np.repeat([0, 1], num_subjects))
    draws_DKS = groups.draw(settings).reshape(-1, 2, num_subjects)
    shares: Floats = (draws_DKS * right_KS).sum(axis=2) / (num_subjects * num_cells)
    return shares


def _image_draws(right_K: npt.NDArray[np.int64], num_images: int, settings: BootstrapSettings) -> Floats:
    """Draw the images of each class with replacement: the number of right ones among them is binomial."""
    generator = np.random.default_rng(settings.seed)
    shares: Floats = generator.binomial(num_images, right_K / num_images, (settings.num_draws, 2)) / num_images
    return shares


def _interval(right_DK: Floats, settings: BootstrapSettings) -> tuple[float, float]:
    """Return the percentiles of the balanced accuracy; a point where all draws agree."""
    of_0, of_1 = right_DK.T
    values_D = confusion_metrics(np.stack([of_0, 1 - of_0, 1 - of_1, of_1], axis=1))[METRIC]
    interval = percentile_interval(values_D, settings.level)
    return (interval.low, interval.high) if interval else (float(values_D[0]), float(values_D[0]))


def main() -> None:
    """Simulate every row and print the table."""
    arguments = _arguments()
    header = ("subjects a class", "95 % interval by subjects: coverage", "width", "by images: coverage", "width")
    rows = []
    for number in arguments.subjects:
        found = simulate(number, arguments.cells, arguments.cohorts, arguments.draws, arguments.seed)
        rows.append((number, *(text for each in found for text in (f"{100 * each.share:.1f} %", f"{each.width:.3f}"))))
    print(markdown_table(header, rows))


def _arguments() -> Any:  # noqa: ANN401 - argparse's namespace
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=2000, help="Simulated data sets a row (default: 2000).")
    parser.add_argument("--draws", type=int, default=500, help="Resamples of an interval (default: 500).")
    parser.add_argument("--cells", type=int, default=60, help="Cells of a subject (default: 60).")
    parser.add_argument("--subjects", type=int, nargs="+", default=SUBJECTS_PER_CLASS, help="Subjects of each class.")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
