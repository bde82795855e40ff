"""Predictions as values and as tables: one row per sample in, CSV files out and back in. No torch.

Two files are written from the same table. ``predictions.csv`` is for reading, in a spreadsheet too, so text there
cannot be taken for a formula; :func:`read_predictions` takes the apostrophe off again. A submission is for a grading
program that joins by id, so ids there are unchanged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from leukemia_data.errors import RunError
from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.spreadsheet import formula_restored, formula_safe, quoting_for
from leukemia_models.judging.judged_samples import DEFAULT_THRESHOLD, JudgedSamples

PROBABILITY_PREFIX = "probability_"
TEXT_COLUMNS = ("id", "subject", "split")
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


def judged_samples(table: pd.DataFrame) -> JudgedSamples:
    """Return the rows of a table of predictions that have a label.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`predictions_table` or :func:`read_predictions`.

    Raises
    ------
    UsageError
        If no row has a label.
    """
    known = table[table["label"].notna()]
    return JudgedSamples(
        tuple(known["id"]),
        tuple(known["subject"]),
        known["label"].to_numpy(np.int64),
        known[probability_column(table)].to_numpy(np.float64),
    )


def probability_column(table: pd.DataFrame) -> str:
    """Name of the column that holds the probability of class 1: ``probability_`` and the name of that class.

    Raises
    ------
    RunError
        If there is not exactly one such column.
    """
    names = [str(name) for name in table.columns if str(name).startswith(PROBABILITY_PREFIX)]
    if len(names) != 1:
        raise RunError(f"a table of predictions has one column {PROBABILITY_PREFIX}<class>, not {names}")
    return names[0]


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
            f"{PROBABILITY_PREFIX}{classes[1]}": probabilities_NK[:, 1],
            "prediction": (probabilities_NK[:, 1] > DEFAULT_THRESHOLD).astype(np.int64),
        }
    )


def _texts(values: Sequence[str], rows: Sequence[int]) -> pd.Series[str]:
    # As objects: file names may hold bytes that are no UTF-8, which pandas' own text type refuses.
    return pd.Series([values[row] for row in rows], dtype=object)


def write_predictions(path: Path, table: pd.DataFrame, *, for_excel: bool = False) -> None:
    """Write a table of predictions as CSV, atomically.

    A text that a spreadsheet would take for a formula (it starts with ``=``, ``+``, ``-`` or ``@``), or that starts
    with an apostrophe itself, gets an apostrophe in front. With `for_excel` the file begins with a byte order mark,
    without which Excel takes UTF-8 for another encoding.
    """
    write_table(path, table, for_excel=for_excel)


def write_table(path: Path, table: pd.DataFrame, *, for_excel: bool = False) -> None:
    """Write any table as CSV, atomically, with all texts safe, as :func:`write_predictions` does."""
    texts = table.select_dtypes(["object", "string"])
    safe = table.assign(**{str(name): texts[name].astype(object).map(_safe) for name in texts.columns})
    _write_csv(path, safe, for_excel=for_excel)


def _safe(value: object) -> object:
    return formula_safe(value) if isinstance(value, str) else value


def read_predictions(path: Path) -> pd.DataFrame:
    """Read what :func:`write_predictions` wrote.

    Returns
    -------
    pandas.DataFrame
        ``id``, ``subject`` ("" where unknown), ``label`` (Int64, missing where unknown), ``split``,
        ``probability_<class 1>``, ``prediction`` and, where the file has it, ``stamp``, in the file's order.

    Raises
    ------
    RunError
        If the file is missing or no such table: the message names file and row.
    """
    try:
        table = pd.read_csv(
            path,
            dtype=object,
            keep_default_na=False,
            # With or without a byte order mark.
            encoding="utf-8-sig",
            encoding_errors="surrogateescape",
            compression=None,
        )
    except FileNotFoundError:
        raise RunError(f"there are no predictions {path}: judge the run first, with `ltrain evaluate`") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as a table of predictions: {error}") from error
    missing = [name for name in (*TEXT_COLUMNS, "label", "prediction") if name not in table]
    if missing:
        raise RunError(f"{path} is no table of predictions: it has no column {', '.join(missing)}")
    for name in TEXT_COLUMNS:
        table[name] = table[name].map(formula_restored).astype(object)
    return _with_numbers(path, table)


def _with_numbers(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Turn the texts of the number columns into numbers."""
    name = probability_column(table)
    labels = table["label"].mask(table["label"] == "")
    table = table.assign(
        label=_parsed(path, labels, {0, 1}).astype("Int64"),
        prediction=_parsed(path, table["prediction"], {0, 1}).astype("int64"),
        **{name: _parsed(path, table[name], None).astype("float64")},
    )
    outside = ~table[name].between(0, 1)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise RunError(f"{path}, row {row + 2}: {name} is {table[name].iloc[row]}, not in [0, 1]")
    return table


def _parsed(path: Path, texts: pd.Series[str], allowed: set[int] | None) -> pd.Series[float]:
    numbers = pd.to_numeric(texts, errors="coerce")
    bad = texts.notna() & (numbers.isna() if allowed is None else ~numbers.isin(allowed))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise RunError(f"{path}, row {row + 2}: {texts.name} cannot be {texts.iloc[row]!r}")
    return numbers


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
        By default those of the table's rows, in its order; a repeated row is repeated.

    Raises
    ------
    RunError
        If an id of `order` or a row has no prediction, or one id has different ones.
    """
    by_id = dict(zip(table["id"], table["prediction"].astype(object), strict=True))
    pairs = set(zip(table["id"], table["prediction"].astype(object), strict=True))
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise RunError(f"{path.name}: several predictions for the same id: {_listed(sorted(repeated))}")
    wanted = list(table["id"]) if order is None else list(order)
    absent = [wanted_id for wanted_id in wanted if not _is_answer(by_id.get(wanted_id))]
    if absent:
        raise RunError(
            f"{path.name}: no prediction for {_listed(absent)}; predict the split that holds these images first"
        )
    frame = pd.DataFrame({"ID": pd.Series(wanted, dtype=object), "label": [int(by_id[i]) for i in wanted]})
    _write_csv(path, frame)


def _is_answer(prediction: object) -> bool:
    return prediction is not None and prediction is not pd.NA and prediction != ""


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MAX_LISTED} more" if len(ids) > MAX_LISTED else ""
    return ", ".join(ids[:MAX_LISTED]) + more


def _write_csv(path: Path, frame: pd.DataFrame, *, for_excel: bool = False) -> None:
    texts = frame.select_dtypes(["object", "string"])
    with atomic_path(path) as partial:
        frame.to_csv(
            partial,
            index=False,
            quoting=quoting_for(cell for name in texts.columns for cell in texts[name]),
            lineterminator="\n",
            encoding="utf-8-sig" if for_excel else "utf-8",
            errors="surrogateescape",
            float_format="%.9g",
        )
