"""Submissions: for each row of a list its ``Path`` string and the class predicted, in the list's order, or no file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from leukemia_data.errors import SourceError, UsageError, listed
from leukemia_data.samples.record import ImagePlace
from leukemia_data.sources.image_rows import ImageRow
from leukemia_models.judging.predictions import write_submission
from leukemia_models.runs.run_files import is_of_run


def require_all_predicted(rows: Sequence[ImageRow], problems: Mapping[int, str]) -> None:
    """Refuse to submit less than was listed.

    Raises
    ------
    SourceError
        If an image could not be used, with tables and lines.
    """
    if not problems:
        return
    num_files = len({rows[number].key for number in problems})
    places = listed((f"{rows[number].place_text} ({problems[number]})" for number in problems), separator="; ")
    raise SourceError(f"no submission was written: {num_files} of the images cannot be used: {places}")


def require_not_replaced(outputs: Iterable[Path | None], inputs: Iterable[ImagePlace]) -> None:
    """Refuse to write over what is read, one file over another, or over what a run or an evaluation keeps.

    Raises
    ------
    UsageError
        With the file's name.
    """
    taken = {place.resolve() for place in inputs if isinstance(place, Path)}
    for path in outputs:
        if path is None:
            continue
        if path.resolve() in taken:
            raise UsageError(f"{path} would replace a list, an image or another output: choose another name")
        if is_of_run(path.resolve()):
            raise UsageError(f"{path} is one of a run's own files or results: choose another name")
        taken.add(path.resolve())


def write_submissions(tables: Mapping[Path, pd.DataFrame], positive: str) -> None:
    """Write each table of predictions as a submission; folders are made.

    Parameters
    ----------
    tables
        By the submission's path: complete, see :func:`require_all_predicted`.
    positive
        The class that is written as 1.
    """
    for path, table in tables.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_submission(path, table, positive)
