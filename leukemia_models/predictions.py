"""Predictions as values and as tables: one row per sample in, CSV files out. No torch.

Two files are written from the same table. ``predictions.csv`` is for reading, in a spreadsheet too, so text there
cannot be taken for a formula. A submission is for a grading program that joins by id, so ids there are unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from leukemia_data.atomic import atomic_path
from leukemia_data.errors import RunError

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
MAX_LISTED = 3


@dataclass(frozen=True)
class Predictions:
    """One row per sample, in the order of the batches.

    Parameters
    ----------
    indices_N : int64 array (N,)
        Numbers of the samples in their cache.
    labels_N : int64 array (N,)
        True classes, -1 where unknown.
    log_probabilities_NK : float64 array (N,K)
        Logarithms of the class probabilities.
    """

    indices_N: npt.NDArray[np.int64]
    labels_N: npt.NDArray[np.int64]
    log_probabilities_NK: npt.NDArray[np.float64]

    @property
    def probabilities_NK(self) -> npt.NDArray[np.float64]:
        """Probability of each class; every row sums to 1."""
        probabilities: npt.NDArray[np.float64] = np.exp(self.log_probabilities_NK)
        return probabilities

    @property
    def loss(self) -> float:
        """Cross-entropy, averaged over the samples; all labels must be known."""
        chosen = self.log_probabilities_NK[np.arange(len(self.labels_N)), self.labels_N]
        return float(-chosen.mean())


def predictions_table(
    predictions: Predictions,
    ids: Sequence[str],
    subjects: Sequence[str],
    splits: Sequence[str],
    classes: Sequence[str] = ("hem", "all"),
) -> pd.DataFrame:
    """Join predictions with what is known of their samples.

    Parameters
    ----------
    predictions : Predictions
        Of two classes.
    ids, subjects, splits : sequence of str
        Of all samples of the cache (or list of files): sample number i is described by entry i.
    classes : sequence of two str
        The second names the column of its probability.

    Returns
    -------
    pandas.DataFrame
        ``id``, ``subject``, ``label`` (missing where unknown), ``split``, ``probability_<class 1>``,
        ``prediction``; in the order of the predictions.
    """
    rows = predictions.indices_N.tolist()
    labels = pd.array(predictions.labels_N, dtype="Int64")
    labels[predictions.labels_N < 0] = pd.NA
    probabilities_NK = predictions.probabilities_NK
    return pd.DataFrame(
        {
            "id": _texts(ids, rows),
            "subject": _texts(subjects, rows),
            "label": labels,
            "split": _texts(splits, rows),
            f"probability_{classes[1]}": probabilities_NK[:, 1],
            "prediction": probabilities_NK.argmax(axis=1),
        }
    )


def _texts(values: Sequence[str], rows: Sequence[int]) -> pd.Series[str]:
    # As objects: file names may hold bytes that are no UTF-8, which pandas' own text type refuses.
    return pd.Series([values[row] for row in rows], dtype=object)


def write_predictions(path: Path, table: pd.DataFrame) -> None:
    """Write a table of predictions as CSV, atomically.

    A text that a spreadsheet would take for a formula (it starts with ``=``, ``+``, ``-`` or ``@``) gets an apostrophe
    in front.
    """
    texts = table[["id", "subject", "split"]].map(_formula_safe)
    _write_csv(path, table.assign(**{str(name): texts[name] for name in texts.columns}))


def _formula_safe(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def write_submission(path: Path, table: pd.DataFrame, order: Sequence[str] | None = None) -> None:
    """Write the lab's submission file: header ``ID,label``, the ids unchanged, the prediction as 0 or 1.

    Parameters
    ----------
    path : Path
        In a directory that exists; replaced in one step.
    table : pandas.DataFrame
        From :func:`predictions_table`.
    order : sequence of str, optional
        The ids to submit, in this order (the lab's three test lists hold the same images in different orders).
        By default all, in the table's order.

    Raises
    ------
    RunError
        If an id of `order` has no prediction, or one id has several.
    """
    repeated = table["id"][table["id"].duplicated()].tolist()
    if repeated:
        raise RunError(f"{path.name}: several predictions for the same id: {_listed(repeated)}")
    by_id = dict(zip(table["id"], table["prediction"], strict=True))
    wanted = list(by_id) if order is None else list(order)
    absent = [wanted_id for wanted_id in wanted if wanted_id not in by_id]
    if absent:
        raise RunError(
            f"{path.name}: no prediction for {_listed(absent)}; predict the split that holds these images first"
        )
    frame = pd.DataFrame({"ID": pd.Series(wanted, dtype=object), "label": [int(by_id[i]) for i in wanted]})
    _write_csv(path, frame)


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MAX_LISTED} more" if len(ids) > MAX_LISTED else ""
    return ", ".join(ids[:MAX_LISTED]) + more


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    with atomic_path(path) as partial:
        frame.to_csv(
            partial,
            index=False,
            lineterminator="\n",
            encoding="utf-8",
            errors="surrogateescape",
            float_format="%.9g",
        )
