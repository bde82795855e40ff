"""Predict with a trained run: a part of its split, image files, and the lab's test lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leukemia_data.errors import RunError, SourceError, UsageError
from leukemia_data.lazy_imports import pd
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.image_rows import list_image_rows, list_table_rows
from leukemia_models.evaluation.predictions import write_submission, write_table
from leukemia_models.evaluation.settings import Tta
from leukemia_models.runs.evaluate_part import Predictor, part_predictions, require_same_data
from leukemia_models.runs.open_run import OpenRun, chosen_tta
from leukemia_models.runs.predict_files import (
    predict_files,
    predicted_counts,
    require_not_replaced,
    submission_problem,
    table_of_files,
)
from leukemia_models.runs.run_folder import FINAL
from leukemia_models.runs.run_split import TEST, KnownSamples
from leukemia_models.runs.start_weights import seen_by_checkpoint


@dataclass(frozen=True, kw_only=True)
class RunPredictions:
    """Predictions of images.

    Attributes
    ----------
    table
        One row per image or row of a list, as from
        :func:`~leukemia_models.evaluation.predictions.predictions_table`; of image files as in
        :class:`~leukemia_models.runs.predict_files.FileTable`.
    out
        The CSV file with the table, or None.
    failures
        Ids of the rows without a prediction.
    problem
        A sentence about them, or empty.
    num_known, cautions
        As in :class:`~leukemia_models.runs.predict_files.FileTable`.
    """

    table: pd.DataFrame
    out: Path | None
    checkpoint: Path
    tta: Tta
    classes: tuple[str, ...]
    failures: tuple[str, ...] = ()
    problem: str = ""
    num_known: Mapping[str, int] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()

    @property
    def num_predicted(self) -> int:
        """Number of rows with a prediction."""
        return len(self.table) - len(self.failures)

    @property
    def num_predicted_per_class(self) -> dict[str, int]:
        """Number of rows with each predicted class, by its name."""
        return predicted_counts(self.table, self.classes)

    def require_complete(self) -> None:
        """Raise a RunError if an image could not be used."""
        if self.problem:
            raise RunError(self.problem)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the table as JSON can hold it."""
        return {
            "out": None if self.out is None else str(self.out),
            "checkpoint": str(self.checkpoint),
            "tta": self.tta.to_dict(),
            "num_predicted": self.num_predicted,
            "predicted": self.num_predicted_per_class,
            "failed": list(self.failures),
            "known": dict(self.num_known),
            "cautions": list(self.cautions),
        }


def predict_part(
    run: OpenRun,
    part: str = TEST,
    *,
    checkpoint: str = FINAL,
    tta: str | None = None,
    tta_average: str | None = None,
    out: Path | None = None,
    submission: Path | None = None,
    for_excel: bool = False,
) -> RunPredictions:
    """Predict a part of a run's split.

    Parameters
    ----------
    part
        ``train``, ``valid``, ``test`` or ``all``.
    checkpoint, tta, tta_average
        As for :func:`~leukemia_models.runs.evaluate_run.evaluate_run`.
    out, submission
        CSV files to write: the table of predictions, and the lab's ``ID,label``.
    for_excel
        Begin `out` with a byte order mark.

    Raises
    ------
    UsageError, SourceError
        If the part holds no image, an argument is unknown, or a file cannot be written or would replace another.
    RunError
        If the run's checkpoint or cache is missing, damaged or of something else.
    """
    predictor = _predictor(run, checkpoint, tta, tta_average)
    _require_writable((out, submission), ())
    info = predictor.checkpoint.info
    with run.data() as data:
        require_same_data(predictor.checkpoint, data)
        table = part_predictions(predictor.predict_part(data, part), data, part, info.positive)
    _write(table, out, submission, info.positive, for_excel=for_excel)
    return RunPredictions(
        table=table, out=out, checkpoint=predictor.checkpoint.path, tta=predictor.tta, classes=info.classes
    )


def predict_images(
    run: OpenRun,
    images: Sequence[ImagePlace],
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    checkpoint: str = FINAL,
    tta: str | None = None,
    tta_average: str | None = None,
    out: Path | None = None,
    submission: Path | None = None,
    for_excel: bool = False,
) -> RunPredictions:
    """Predict images: files, folders and CSV tables with a column ``Path``.

    They are preprocessed by the recipe of the checkpoint. An image that is listed twice is predicted once; the row of
    an unusable one has no prediction and says why.

    Parameters
    ----------
    images, root, allow_outside
        As for :func:`~leukemia_data.sources.image_rows.list_image_rows`.
    checkpoint, tta, tta_average, out, submission, for_excel
        As for :func:`predict_part`. No submission is written if an image is unusable.

    Raises
    ------
    UsageError, SourceError
        If the images cannot be listed, an argument is unknown, or a file cannot be written or would replace another.
    RunError
        If the run's checkpoint is missing or damaged, or no image can be used.
    """
    predictor = _predictor(run, checkpoint, tta, tta_average)
    _require_writable((out, submission), images)
    rows = list_image_rows(images, root=root, allow_outside=allow_outside, need_files=submission is not None)
    require_not_replaced((out, submission), [row.record.path for row in rows])
    info = predictor.checkpoint.info
    known = run.known_samples(predictor.checkpoint)
    found = predict_files(rows, predictor)
    joined = table_of_files(found, known, info.classes, info.positive, seen=seen_by_checkpoint(info))
    refusal = submission_problem(found) if submission is not None else ""
    _write(joined.table, out, None if refusal else submission, info.positive, for_excel=for_excel)
    problem = f"{len(found.problems)} of {len(rows)} images could not be used and have no prediction (listed above)"
    return RunPredictions(
        table=joined.table,
        out=out,
        checkpoint=predictor.checkpoint.path,
        tta=predictor.tta,
        classes=info.classes,
        failures=tuple(rows[index].record.record_id for index in found.problems),
        problem=refusal or (problem if found.problems else ""),
        num_known=joined.num_known,
        cautions=joined.cautions,
    )


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A list and its submission."""

    table: ImagePlace
    out: Path
    num_rows: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {"list": str(self.table), "out": str(self.out), "num_rows": self.num_rows}


@dataclass(frozen=True, kw_only=True)
class Submissions:
    """Submissions for several lists; ``num_predicted_per_class`` counts an image once if it is listed several times."""

    checkpoint: Path
    tta: Tta
    num_predicted_per_class: Mapping[str, int]
    submissions: tuple[Submission, ...]

    @property
    def num_predicted(self) -> int:
        """Number of different images."""
        return sum(self.num_predicted_per_class.values())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "checkpoint": str(self.checkpoint),
            "tta": self.tta.to_dict(),
            "num_predicted": self.num_predicted,
            "predicted": dict(self.num_predicted_per_class),
            "submissions": [submission.to_dict() for submission in self.submissions],
        }


def write_submissions(
    run: OpenRun,
    lists: Sequence[ImagePlace],
    out_dir: Path,
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    checkpoint: str = FINAL,
    tta: str | None = None,
    tta_average: str | None = None,
) -> Submissions:
    """Predict the images of some lists, and write a submission for each list, all or none.

    Parameters
    ----------
    checkpoint, tta, tta_average
        As for :func:`predict_part`.
    lists
        CSV tables with a column ``Path``, of different names.
    out_dir
        Folder for the submissions, each named like its list.
    root, allow_outside
        As for :func:`~leukemia_data.sources.image_rows.list_table_rows`.

    Raises
    ------
    UsageError, SourceError
        If a list cannot be read, an image is unusable, or a submission would replace a list or another one.
    RunError
        If the run's checkpoint is missing or damaged.
    """
    out_paths = _submission_paths(lists, out_dir)
    rows_of = [list_table_rows(table, root, allow_outside=allow_outside, need_files=True) for table in lists]
    rows = [row for listed in rows_of for row in listed]
    predictor = _predictor(run, checkpoint, tta, tta_average)
    found = predict_files(rows, predictor)
    if problem := submission_problem(found):
        raise SourceError(problem)
    info = predictor.checkpoint.info
    table = table_of_files(found, KnownSamples(), info.classes, info.positive).table
    out_dir.mkdir(parents=True, exist_ok=True)
    submissions, start = [], 0
    for place, path, num_rows in zip(lists, out_paths, map(len, rows_of), strict=True):
        write_submission(path, table[start : start + num_rows], info.positive)
        submissions.append(Submission(table=place, out=path, num_rows=num_rows))
        start += num_rows
    is_repeated = pd.Series([row.key for row in rows]).duplicated()
    return Submissions(
        checkpoint=predictor.checkpoint.path,
        tta=predictor.tta,
        num_predicted_per_class=predicted_counts(table[~is_repeated], info.classes),
        submissions=tuple(submissions),
    )


def _predictor(run: OpenRun, which: str, tta: str | None, tta_average: str | None) -> Predictor:
    checkpoint = run.checkpoint(which)
    return run.predictor(checkpoint, chosen_tta(checkpoint.info, tta, tta_average))


def _require_writable(paths: Sequence[Path | None], images: Sequence[ImagePlace]) -> None:
    for path in paths:
        if path is not None and not path.resolve().parent.is_dir():
            raise SourceError(f"cannot write {path}: its folder does not exist")
    require_not_replaced(paths, images)


def _write(
    table: pd.DataFrame, out: Path | None, submission: Path | None, positive: str | None, *, for_excel: bool
) -> None:
    if out is not None:
        write_table(out, table, for_excel=for_excel)
    if submission is not None:
        write_submission(submission, table, positive)


def _submission_paths(tables: Sequence[ImagePlace], out_dir: Path) -> list[Path]:
    """Return a path for each list's submission; raises a UsageError if it is a list or that of another submission."""
    if len({table.name.lower() for table in tables}) < len(tables):
        raise UsageError("two lists have the same name, and their submissions would too: rename one, or call twice")
    paths = [out_dir / table.name for table in tables]
    given = {table.resolve() for table in tables if isinstance(table, Path)}
    for path in paths:
        if path.resolve() in given:
            raise UsageError(f"the submission {path} would replace a list: choose another --out-dir")
    return paths
