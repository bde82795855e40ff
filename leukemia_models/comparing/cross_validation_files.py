"""Where the files of a k-fold lie.

::

    runs/NAME/
      kfold.json         what the cross-validation was told
      fold-1/ ...        one run (or plan) a fold
      predictions.csv    out-of-fold predictions, with a column for the fold
      folds.csv          one row a fold: what was held out, and its metrics
      results.json       folds, mean and spread, pooled results
      summary.md         the same for people, and folds.png
      pooled/            the out-of-fold predictions judged together: results, summary, figures
"""

from __future__ import annotations

import re
from pathlib import Path

from leukemia_data.errors import RunError

KFOLD_FILE_NAME = "kfold.json"
POOLED_NAME = "pooled"
OUT_OF_FOLD_PART = "out-of-fold"
_FOLD_NAME = re.compile(r"fold-([0-9]+)")


def is_kfold(path: Path) -> bool:
    """Whether a folder holds a k-fold."""
    return (path / KFOLD_FILE_NAME).is_file()


def is_fold_name(name: str) -> bool:
    """Whether a name is that of a fold's folder, such as ``fold-1``."""
    return _FOLD_NAME.fullmatch(name) is not None


def find_folds(path: Path) -> list[Path]:
    """Return the folders of a k-fold's folds, in order of their numbers.

    Raises
    ------
    RunError
        If there is none.
    """
    numbered = {
        int(match.group(1)): child
        for child in (path.iterdir() if path.is_dir() else ())
        if (match := _FOLD_NAME.fullmatch(child.name)) and child.is_dir()
    }
    if not numbered:
        raise RunError(f"{path} holds no folds: there is no fold-1 in it")
    return [numbered[number] for number in sorted(numbered)]
