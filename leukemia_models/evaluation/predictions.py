"""Predictions as values and as tables: one row per sample in, CSV files out and back in. No torch.

A table names classes, in its cells and in its columns, and has a probability of each: nobody has to know in which order
some run counted them. :func:`evaluated_samples` is where names become 0 and 1, the negative and the positive class.

Two files are written from the same table. ``predictions.csv`` is for reading, in a spreadsheet too, so text there
cannot be taken for a formula; :func:`read_predictions` takes the apostrophe off again. A submission is for a grading
program that joins by id, so ids there are unchanged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from leukemia_data.errors import RunError, listed
from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.text import formula_restored, formula_safe, quoting_for
from leukemia_data.sources.positive_class import negative_first
from leukemia_models.evaluation.evaluated_samples import DEFAULT_THRESHOLD, EvaluatedSamples

PROBABILITY_PREFIX = "probability_"
TEXT_COLUMNS = ("id", "subject", "split")
CLASS_COLUMNS = ("label", "prediction")
UNKNOWN_CLASS = ""
"""As a label: nobody knows the class."""
SUM_TOLERANCE = 1e-6
"""Of the probabilities in a row of a file, which have nine digits."""
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

    def in_order(self, classes: Sequence[str], order: Sequence[str]) -> Predictions:
        """Return the same with the classes in another order: labels and columns count the names in `order`.

        Parameters
        ----------
        classes, order : sequence of str
            The K names in the order of the columns, and in the order wanted.
        """
        columns = [list(classes).index(name) for name in order]
        if columns == list(range(len(columns))):
            return self
        # The last place stands for -1, an unknown label.
        label_of = np.array([*np.argsort(columns), -1], np.int64)
        return Predictions(self.indices_N, label_of[self.labels_N], self.log_probabilities_NK[:, columns])


def evaluated_samples(table: pd.DataFrame, classes: Sequence[str]) -> EvaluatedSamples:
    """Return the rows of a table of predictions that have a label.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`predictions_table` or :func:`read_predictions`.
    classes : sequence of two str
        Names of the negative and the positive class. In what is returned they are 0 and 1, and probabilities are those
        of the positive class.

    Raises
    ------
    UsageError
        If no row has a label.
    RunError
        If the table is of other classes: a name is never taken for another.
    """
    require_classes(table, classes, "the table of predictions")
    negative, positive = classes
    known = table[table["label"] != UNKNOWN_CLASS]
    strange = sorted(set(known["label"]) - {negative, positive})
    if strange:
        raise RunError(f"the table of predictions has labels {listed(strange)}; classes are {listed(classes)}")
    return EvaluatedSamples(
        tuple(known["id"]),
        tuple(known["subject"]),
        (known["label"] == positive).to_numpy().astype(np.int64),
        known[probability_column(positive)].to_numpy(np.float64),
    )


def probability_column(class_name: str) -> str:
    """Return the name of the column that holds the probability of a class."""
    return f"{PROBABILITY_PREFIX}{class_name}"


def table_classes(table: pd.DataFrame) -> tuple[str, ...]:
    """Return the classes whose probabilities a table has, in the order of its columns."""
    names = [str(name) for name in table.columns]
    return tuple(name.removeprefix(PROBABILITY_PREFIX) for name in names if name.startswith(PROBABILITY_PREFIX))


def require_classes(table: pd.DataFrame, classes: Sequence[str], name: str) -> None:
    """Refuse a table of predictions that is not of these classes, in whichever order.

    Raises
    ------
    RunError
        With both lists; `name` says which table it is.
    """
    found = table_classes(table)
    if sorted(found) != sorted(classes):
        raise RunError(
            f"{name} holds probabilities of {listed(found) or 'no class'}, and not of {listed(classes)}: it is of "
            "another run, or of none"
        )


def predictions_table(
    predictions: Predictions,
    ids: Sequence[str],
    subjects: Sequence[str],
    splits: Sequence[str],
    classes: Sequence[str] = ("hem", "all"),
    positive: str | None = None,
) -> pd.DataFrame:
    """Join predictions with what is known of their samples.

    Parameters
    ----------
    predictions : Predictions
        Of two classes.
    ids, subjects, splits : sequence of str
        Of all samples of the cache (or list of files): sample number i is described by entry i.
    classes : sequence of two str
        Name of each label.
    positive : str, optional
        The class that is predicted where its probability is above 0.5, the other one else. By default the second.

    Returns
    -------
    pandas.DataFrame
        In the order of the predictions: ``id``, ``subject``, ``label`` (the name of the true class, "" where unknown),
        ``split``, ``prediction`` (the name of a class), and ``probability_<class>`` for each of `classes`. Texts are
        objects.
    """
    rows = predictions.indices_N.tolist()
    probabilities_NK = predictions.probabilities_NK
    return pd.DataFrame(
        {
            "id": _texts(ids, rows),
            "subject": _texts(subjects, rows),
            # The last one stands for -1, an unknown label.
            "label": _texts([*classes, UNKNOWN_CLASS], predictions.labels_N.tolist()),
            "split": _texts(splits, rows),
            "prediction": pd.Series(predicted_classes(predictions, classes, positive), dtype=object),
            **{probability_column(name): probabilities_NK[:, label] for label, name in enumerate(classes)},
        }
    )


def predicted_classes(predictions: Predictions, classes: Sequence[str], positive: str | None = None) -> list[str]:
    """Return the name of the class predicted for each sample.

    Parameters
    ----------
    predictions : Predictions
        Of two classes.
    classes : sequence of two str
        Name of each label.
    positive : str, optional
        The class that is predicted where its probability is above 0.5, the other one else. By default the second.
    """
    negative, positive = negative_first(classes, classes[1] if positive is None else positive)
    is_positive_N = predictions.probabilities_NK[:, list(classes).index(positive)] > DEFAULT_THRESHOLD
    return [positive if is_positive else negative for is_positive in is_positive_N.tolist()]


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


def read_predictions(path: Path, classes: Sequence[str]) -> pd.DataFrame:
    """Read what :func:`write_predictions` wrote, now or in version 0.1.

    Files of version 0.1 have one column of probabilities, that of class 1, and write classes as 0 and 1; they come back
    in the present form. Which form a file has is told by its columns alone: classes may be called 0 and 1.

    Parameters
    ----------
    path : Path
        The file.
    classes : sequence of two str
        Names of the run's classes; for a file of version 0.1 in the order of their labels.

    Returns
    -------
    pandas.DataFrame
        As :func:`predictions_table` returns it, and ``stamp`` where the file has it, in the file's order.

    Raises
    ------
    RunError
        If the file is missing, no such table, or of other classes: the message names file and row.
    """
    table = _read_texts(path)
    missing = [name for name in (*TEXT_COLUMNS, *CLASS_COLUMNS) if name not in table]
    if missing:
        raise RunError(f"{path} is no table of predictions: it has no column {', '.join(missing)}")
    for name in (*TEXT_COLUMNS, *CLASS_COLUMNS):
        table[name] = table[name].map(formula_restored).astype(object)
    if table_classes(table) == (classes[1],):
        return _from_first_version(path, table, classes)
    require_classes(table, classes, str(path))
    _require_names(path, table["label"], {*classes, UNKNOWN_CLASS})
    _require_names(path, table["prediction"], set(classes))
    table = table.assign(**{name: _shares(path, table[name]) for name in map(probability_column, classes)})
    sums = table[[*map(probability_column, classes)]].sum(axis=1)
    _refuse_first(path, (sums - 1).abs() > SUM_TOLERANCE, lambda row: f"probabilities sum to {sums.iloc[row]:.9g}")
    return table


def _read_texts(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(
            path,
            dtype=object,
            keep_default_na=False,
            # With or without a byte order mark.
            encoding="utf-8-sig",
            encoding_errors="surrogateescape",
            compression=None,
        )
    except FileNotFoundError:
        raise RunError(f"there are no predictions {path}: evaluate the run first, with `ltrain evaluate`") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as a table of predictions: {error}") from error


def _from_first_version(path: Path, table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The present form of a table of version 0.1: 0 and 1 become names, and the other class gets its probability."""
    name_of = {str(label): name for label, name in enumerate(classes)}
    _require_names(path, table["label"], {*name_of, UNKNOWN_CLASS})
    _require_names(path, table["prediction"], set(name_of))
    own = [*TEXT_COLUMNS, *CLASS_COLUMNS, probability_column(classes[1])]
    shares = _shares(path, table[probability_column(classes[1])])
    named = {name: table[name].map({**name_of, UNKNOWN_CLASS: UNKNOWN_CLASS}).astype(object) for name in CLASS_COLUMNS}
    return pd.DataFrame(
        {
            "id": table["id"],
            "subject": table["subject"],
            "label": named["label"],
            "split": table["split"],
            "prediction": named["prediction"],
            probability_column(classes[0]): 1 - shares,
            probability_column(classes[1]): shares,
            **{str(name): table[name] for name in table.columns if name not in own},
        }
    )


def _require_names(path: Path, names: pd.Series[str], known: Collection[str]) -> None:
    said = listed(sorted(name for name in known if name))
    _refuse_first(
        path, ~names.isin(known), lambda row: f"{names.name} cannot be {names.iloc[row]!r}: it is one of {said}"
    )


def _shares(path: Path, texts: pd.Series[str]) -> pd.Series[float]:
    """Probabilities as numbers."""
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    _refuse_first(path, numbers.isna(), lambda row: f"{texts.name} cannot be {texts.iloc[row]!r}")
    _refuse_first(path, ~numbers.between(0, 1), lambda row: f"{texts.name} is {numbers.iloc[row]}, not in [0, 1]")
    return numbers


def _refuse_first(path: Path, is_wrong: pd.Series[bool], what: Callable[[int], str]) -> None:
    if is_wrong.any():
        row = int(np.flatnonzero(is_wrong)[0])
        raise RunError(f"{path}, row {row + 2}: {what(row)}")


def write_submission(path: Path, table: pd.DataFrame, positive: str, order: Sequence[str] | None = None) -> None:
    """Write the lab's submission file: header ``ID,label``, the ids unchanged, 1 where the positive class is predicted.

    Parameters
    ----------
    path : Path
        In a directory that exists; replaced in one step.
    table : pandas.DataFrame
        From :func:`predictions_table`; ``id`` and ``prediction`` are enough.
    positive : str
        Name of the positive class, which is 1; everything else is 0.
    order : sequence of str, optional
        The ids to submit, in this order (the lab's three test lists hold the same images in different orders).
        By default those of the table's rows, in its order; a repeated row is repeated.

    Raises
    ------
    RunError
        If an id of `order` or a row has no prediction, or one id has different ones.
    """
    answers = dict.fromkeys(zip(table["id"], table["prediction"], strict=True))
    repeated = [record_id for record_id, count in Counter(record_id for record_id, _ in answers).items() if count > 1]
    if repeated:
        raise RunError(f"{path.name}: several predictions for the same id: {listed(repeated, most=MAX_LISTED)}")
    by_id = {record_id: answer for record_id, answer in answers if isinstance(answer, str) and answer}
    wanted = list(table["id"]) if order is None else list(order)
    absent = [wanted_id for wanted_id in wanted if wanted_id not in by_id]
    if absent:
        raise RunError(
            f"{path.name}: no prediction for {listed(absent, most=MAX_LISTED)}; predict the split that holds these "
            "images first"
        )
    frame = pd.DataFrame({"ID": pd.Series(wanted, dtype=object), "label": [int(by_id[i] == positive) for i in wanted]})
    _write_csv(path, frame)


def _write_csv(path: Path, frame: pd.DataFrame, *, for_excel: bool = False) -> None:
    texts = frame.select_dtypes(["object", "string"])
    with atomic_path(path) as partial:
        frame.to_csv(
            partial,
            index=False,
            quoting=quoting_for([*map(str, frame.columns), *(cell for name in texts.columns for cell in texts[name])]),
            lineterminator="\n",
            encoding="utf-8-sig" if for_excel else "utf-8",
            errors="surrogateescape",
            float_format="%.9g",
        )
