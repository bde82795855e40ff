"""Tables of predictions and splits for tests of reports."""

from __future__ import annotations

import numpy as np
import pandas as pd

from leukemia_data.splitting.leaks import LeakCheck
from leukemia_models.reports.results import SplitCounts, SplitSummary

CLASSES = ("hem", "all")
NO_LEAK = LeakCheck(shared_subjects=0, shared_images=0, unknown_subjects=0)
SHARED = LeakCheck(shared_subjects=5, shared_images=2, unknown_subjects=0)


def make_predictions(num_subjects: int, num_cells: int = 4, seed: int = 0) -> pd.DataFrame:
    """Predictions of `num_subjects` subjects a class, right for most of the cells."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(2 * num_subjects), num_cells)
    labels = subject % 2
    probabilities = 1 / (1 + np.exp(-(2 * labels - 1 + rng.normal(0, 1.2, len(subject)))))
    return pd.DataFrame(
        {
            "id": [f"{number}.bmp" for number in range(len(subject))],
            "subject": [f"{'H' if label == 0 else ''}{n}" for n, label in zip(subject, labels, strict=True)],
            "label": pd.Series([CLASSES[label] for label in labels], dtype=object),
            "split": "test",
            "prediction": pd.Series([CLASSES[int(value > 0.5)] for value in probabilities], dtype=object),
            "probability_hem": 1 - probabilities,
            "probability_all": probabilities,
        }
    )


def make_split(num_subjects: int, num_cells: int = 4, leaks: LeakCheck = NO_LEAK) -> SplitSummary:
    images = (num_subjects * num_cells,) * 2
    parts = {"train": SplitCounts((30, 60), (9, 20)), "test": SplitCounts(images, (num_subjects,) * 2)}
    return SplitSummary("subject", leaks, "test", parts)
