"""Predictions as arrays, tables and CSV files. No torch.

A table names the classes in its cells and columns, independent of a run's order of labels; :func:`evaluated_samples`
turns names into numbers, of two classes into 0 and 1 for the negative and the positive one. In ``predictions.csv``
texts are escaped against formulas of spreadsheets, which :func:`read_predictions` undoes. In a submission ids are
unchanged, since it is joined by id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import RunError, listed
from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.text import formula_restored, formula_safe, quoting_for
from leukemia_data.lazy_imports import pd
from leukemia_data.sources.positive_class import evaluated_order
from leukemia_models.evaluation.evaluated_samples import DEFAULT_THRESHOLD, EvaluatedSamples, predicted_classes

PROBABILITY_PREFIX = "probability_"
TEXT_COLUMNS = ("id", "subject", "split")
CLASS_COLUMNS = ("label", "prediction")
UNKNOWN_CLASS = ""
"""The label of a sample of unknown class."""
SUM_TOLERANCE = 1e-6
"""For the sum of the probabilities in a row of a file, which have nine digits."""
MAX_LISTED = 3


@dataclass(frozen=True)
class Predictions:
    """Predictions in the order of the batches.

    Parameters
    ----------
    indices_N : int64 array (N,)
        Indices of the samples in their cache.
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
        """Class probabilities, (N,K)."""
        return np.asarray(np.exp(self.log_probabilities_NK))

    @property
    def loss(self) -> float:
        """Mean cross-entropy; all labels must be known."""
        chosen = self.log_probabilities_NK[np.arange(len(self.labels_N)), self.labels_N]
        return float(-chosen.mean())

    def in_order(self, classes: Sequence[str], order: Sequence[str]) -> Predictions:
        """Return the predictions with labels and columns in the order of `order` instead of `classes`."""
        columns = [list(classes).index(name) for name in order]
        if columns == list(range(len(columns))):
            return self
        # The last entry is for -1, an unknown label.
        label_of = np.array([*np.argsort(columns), -1], np.int64)
        return Predictions(self.indices_N, label_of[self.labels_N], self.log_probabilities_NK[:, columns])


def evaluated_samples(table: pd.DataFrame, classes: Sequence[str]) -> EvaluatedSamples:
    """Return the labelled rows of a table of predictions.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`predictions_table` or :func:`read_predictions`.
    classes : sequence of str
        Names of the classes, of two the negative and the positive one, which become 0, 1, ...

    Raises
    ------
    UsageError
        If no row has a label.
    RunError
        If the table has other classes.
    """
    require_classes(table, classes, "the table of predictions")
    known = table[table["label"] != UNKNOWN_CLASS]
    strange = sorted(set(known["label"]) - set(classes))
    if strange:
        raise RunError(f"the table of predictions has labels {listed(strange)}; classes are {listed(classes)}")
    # Of two classes one probability says both, also if rounded digits do not sum to 1.
    columns = list(map(probability_column, classes[-1:] if len(classes) == 2 else classes))
    probabilities_NK = known[columns].to_numpy(np.float64)
    label_of = {name: label for label, name in enumerate(classes)}
    return EvaluatedSamples(
        tuple(known["id"]),
        tuple(known["subject"]),
        np.array([label_of[name] for name in known["label"]], np.int64),
        probabilities_NK[:, 0] if len(classes) == 2 else probabilities_NK,
    )


def probability_column(class_name: str) -> str:
    """Return the name of the column of a class's probability."""
    return f"{PROBABILITY_PREFIX}{class_name}"


def table_classes(table: pd.DataFrame) -> tuple[str, ...]:
    """Return the classes of a table, in the order of its columns."""
    names = [str(name) for name in table.columns]
    return tuple(name.removeprefix(PROBABILITY_PREFIX) for name in names if name.startswith(PROBABILITY_PREFIX))


def require_classes(table: pd.DataFrame, classes: Sequence[str], name: str) -> None:
    """Raise RunError unless a table of predictions, called `name` in the message, has these classes in any order."""
    found = table_classes(table)
    if sorted(found) != sorted(classes):
        raise RunError(
            f"{name} holds probabilities of {listed(found) or 'no class'}, and not of {listed(classes)}: it belongs to "
            "another run, or to none"
        )


def predictions_table(
    predictions: Predictions,
    ids: Sequence[str],
    subjects: Sequence[str],
    splits: Sequence[str],
    classes: Sequence[str] = ("hem", "all"),
    positive: str | None = None,
) -> pd.DataFrame:
    """Return a table of predictions.

    Parameters
    ----------
    predictions : Predictions
    ids, subjects, splits : sequence of str
        Of all samples of the cache (or list of files), by index.
    classes : sequence of str
        Name of each label.
    positive : str, optional
        Of two classes the one that is predicted where its probability is above 0.5; by default the second. Of more the
        most probable class is predicted.

    Returns
    -------
    pandas.DataFrame
        In the order of the predictions: ``id``, ``subject``, ``label`` (the name of the true class, "" where unknown),
        ``split``, ``prediction`` (the name of a class), and ``probability_<class>`` for each of `classes`. Texts are
        objects.
    """
    rows = predictions.indices_N.tolist()
    probabilities_NK = predictions.probabilities_NK
    order = evaluated_order(classes, positive)
    columns = [list(classes).index(name) for name in order]
    predictions_N = predicted_classes(probabilities_NK[:, columns], DEFAULT_THRESHOLD)
    return pd.DataFrame(
        {
            "id": _texts(ids, rows),
            "subject": _texts(subjects, rows),
            # The last one is for -1, an unknown label.
            "label": _texts([*classes, UNKNOWN_CLASS], predictions.labels_N.tolist()),
            "split": _texts(splits, rows),
            "prediction": _texts(order, predictions_N.tolist()),
            **{probability_column(name): probabilities_NK[:, label] for label, name in enumerate(classes)},
        }
    )


def _texts(values: Sequence[str], rows: Sequence[int]) -> pd.Series[str]:
    # As objects: pandas' text type refuses file names that are not UTF-8.
    return pd.Series([values[row] for row in rows], dtype=object)


def write_table(path: Path, table: pd.DataFrame, *, for_excel: bool = False) -> None:
    """Write a table as CSV, atomically.

    An apostrophe is put before texts that a spreadsheet would take for a formula (starting with ``=``, ``+``, ``-`` or
    ``@``), or that start with one. With `for_excel` the file begins with a byte order mark, by which Excel knows UTF-8.
    """
    texts = table.select_dtypes(["object", "string"])
    safe = table.assign(**{str(name): texts[name].astype(object).map(_safe) for name in texts.columns})
    _write_csv(path, safe, for_excel=for_excel)


def _safe(value: object) -> object:
    return formula_safe(value) if isinstance(value, str) else value


def read_predictions(path: Path, classes: Sequence[str]) -> pd.DataFrame:
    """Read a table of predictions that :func:`write_table` wrote, in this version or in 0.1.

    Files of version 0.1, which have classes 0 and 1 and a single column of probabilities, are converted.

    Parameters
    ----------
    path : Path
    classes : sequence of str
        Names of the run's classes; for a file of version 0.1 in the order of their labels.

    Returns
    -------
    pandas.DataFrame
        As from :func:`predictions_table`, and ``stamp`` if the file has it.

    Raises
    ------
    RunError
        If the file is missing, not such a table, or has other classes; with file and row.
    """
    table = _read_texts(path)
    missing = [name for name in (*TEXT_COLUMNS, *CLASS_COLUMNS) if name not in table]
    if missing:
        raise RunError(f"{path} is not a table of predictions: it has no column {', '.join(missing)}")
    for name in (*TEXT_COLUMNS, *CLASS_COLUMNS):
        table[name] = table[name].map(formula_restored).astype(object)
    if len(classes) == 2 and table_classes(table) == (classes[1],):
        return _from_first_version(path, table, classes)
    require_classes(table, classes, str(path))
    _require_names(path, table["label"], {*classes, UNKNOWN_CLASS})
    _require_names(path, table["prediction"], set(classes))
    columns = [*map(probability_column, classes)]
    table = table.assign(**{name: _probabilities(path, table[name]) for name in columns})
    sums = table[columns].sum(axis=1)
    _refuse_first(path, (sums - 1).abs() > SUM_TOLERANCE, lambda row: f"probabilities sum to {sums.iloc[row]:.9g}")
    return table


def _read_texts(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(
            path,
            dtype=object,
            keep_default_na=False,
            encoding="utf-8-sig",
            encoding_errors="surrogateescape",
            compression=None,
        )
    except FileNotFoundError:
        raise RunError(f"there are no predictions {path}: evaluate the run first, with `ltrain evaluate`") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as a table of predictions: {error}") from error


def _from_first_version(path: Path, table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Convert a table of version 0.1: name the classes, and add the probability of the other one."""
    name_of = {str(label): name for label, name in enumerate(classes)}
    _require_names(path, table["label"], {*name_of, UNKNOWN_CLASS})
    _require_names(path, table["prediction"], set(name_of))
    columns = ["id", "subject", "label", "split", "prediction", *map(probability_column, classes)]
    probabilities = _probabilities(path, table[columns[-1]])
    named = {name: table[name].map({**name_of, UNKNOWN_CLASS: UNKNOWN_CLASS}).astype(object) for name in CLASS_COLUMNS}
    table = table.assign(**named, **{columns[-2]: 1 - probabilities, columns[-1]: probabilities})
    return table[[*columns, *(name for name in table.columns if name not in columns)]]


def _require_names(path: Path, names: pd.Series[str], known: Collection[str]) -> None:
    possible = listed(sorted(name for name in known if name))
    _refuse_first(
        path, ~names.isin(known), lambda row: f"{names.name} cannot be {names.iloc[row]!r}: it is one of {possible}"
    )


def _probabilities(path: Path, texts: pd.Series[str]) -> pd.Series[float]:
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    _refuse_first(path, numbers.isna(), lambda row: f"{texts.name} cannot be {texts.iloc[row]!r}")
    _refuse_first(path, ~numbers.between(0, 1), lambda row: f"{texts.name} is {numbers.iloc[row]}, not in [0, 1]")
    return numbers


def _refuse_first(path: Path, is_wrong: pd.Series[bool], what: Callable[[int], str]) -> None:
    if is_wrong.any():
        row = int(np.flatnonzero(is_wrong)[0])
        raise RunError(f"{path}, row {row + 2}: {what(row)}")


def write_submission(path: Path, table: pd.DataFrame, positive: str | None, order: Sequence[str] | None = None) -> None:
    """Write a submission file atomically: header ``ID,label``, ids unchanged.

    The label is 1 for the positive class and 0 for the other one; of more than two classes it is the class's name.

    Parameters
    ----------
    path : Path
        In a directory that exists.
    table : pandas.DataFrame
        With ``id`` and ``prediction``, as from :func:`predictions_table`.
    positive : str or None
        Name of the positive class; None for more than two classes.
    order : sequence of str, optional
        The ids to write, in this order; by default those of the table, repeated ones too.

    Raises
    ------
    RunError
        If an id has no prediction, or different ones.
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
    named = [by_id[wanted_id] for wanted_id in wanted]
    labels = named if positive is None else [int(name == positive) for name in named]
    frame = pd.DataFrame({"ID": pd.Series(wanted, dtype=object), "label": labels})
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
