"""The folder of a run: what it was told, which sample was in which split, and where its files lie.

::

    runs/NAME/
      run.json            settings, cache and split; written before the first epoch
      split.csv           id, subject, label, split and pixel digest of every sample
      augment.toml        the augmentation, as --augment takes it
      last.safetensors    after every epoch, and now and then within one; training resumes from it
      best.safetensors    weights of the best epoch
      final.safetensors   what is judged and used: the best weights, with the BatchNorm statistics chosen for them
      history.csv         one row an epoch, and history.png
      <part>/             results.json, summary.md, figures, predictions.csv of valid, test, ...

A plan has a folder of its own, with a run for each stage, ``01-<stage>``, ``02-<stage>``, and itself as ``plan.toml``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from leukemia_data.caches.cache import Cache
from leukemia_data.errors import RunError, UsageError
from leukemia_data.files.atomic import write_text
from leukemia_data.files.documents import (
    COUNT,
    OBJECT,
    OBJECT_OR_NONE,
    TEXT,
    WHOLE_NUMBER,
    Kind,
    parse_json,
    require_kinds,
)
from leukemia_data.splitting.seen_samples import SeenBefore
from leukemia_data.splitting.split_spec import UNUSED, SplitCodes
from leukemia_models.devices.normalization import Normalization
from leukemia_models.runs.run_split import (
    UNUSED_NAME,
    SplitRows,
    changes_of_rows,
    read_split,
    write_split,
)
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.training_plan import EvaluationSettings

RUN_FORMAT = "leukemia-cells run"
RUN_FORMAT_VERSION = 5
"""2 added the augmentation and the sampling; 3 the start, the judging and the plan's stage; 4 the shares; 5 the
positive class, and what the weights to start from have seen."""
PLAN_FILE_NAME = "plan.toml"
RESULTS_NAME = "results.json"
RESULT_NAMES = frozenset({RESULTS_NAME, "summary.md", "predictions.csv", "subjects.csv"})
"""Files of an evaluated part; the first tells what the others are of."""
FINAL = "final"
"""Name of the checkpoint that a finished run is judged and used by."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of a run's files."""

    root: Path

    @property
    def config(self) -> Path:
        """What the run was told."""
        return self.root / "run.json"

    @property
    def split(self) -> Path:
        """Which sample was in which split."""
        return self.root / "split.csv"

    @property
    def augmentation(self) -> Path:
        """What the training images went through."""
        return self.root / "augment.toml"

    @property
    def history(self) -> Path:
        """Metrics per epoch."""
        return self.root / "history.csv"

    @property
    def history_figure(self) -> Path:
        """Accuracy and loss per epoch, drawn."""
        return self.root / "history.png"

    def checkpoint(self, which: str) -> Path:
        """Checkpoint ``last``, ``best`` or ``final``."""
        return self.root / f"{which}.safetensors"

    def part(self, name: str) -> Path:
        """Folder of one judged part."""
        return self.root / name

    @property
    def is_run(self) -> bool:
        """Whether a run began here."""
        return self.config.is_file()

    @property
    def is_begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.checkpoint("last").is_file()


def stage_folder_name(number: int, stage: str) -> str:
    """Return the name of a stage's folder: ``02-large`` for number 1."""
    return f"{number + 1:02d}-{stage}"


def is_begun(path: Path) -> bool:
    """Whether a folder holds a run, or the runs of a plan, with all that they were told."""
    return RunFolder(path).is_run or (path / PLAN_FILE_NAME).is_file()


def is_of_run(path: Path) -> bool:
    """Whether a file's place is one of those where a run, a plan or an evaluation keeps what others read."""
    folder = RunFolder(path.parent)
    own = {each.name for each in (folder.config, folder.split, folder.augmentation, folder.history)} | {PLAN_FILE_NAME}
    if is_begun(path.parent) and (path.name in own or path.suffix == ".safetensors"):
        return True
    return path.name in RESULT_NAMES and (path.parent / RESULTS_NAME).is_file()


def find_runs(path: Path) -> list[RunFolder]:
    """Return the run in a folder, or the runs of all stages of a plan there, in order.

    Raises
    ------
    UsageError
        If there is nothing at `path`.
    RunError
        If there is neither.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist: name the folder of a run")
    folder = RunFolder(path)
    if folder.is_run:
        return [folder]
    if (path / PLAN_FILE_NAME).is_file():
        stages = [RunFolder(child) for child in sorted(path.iterdir()) if (child / folder.config.name).is_file()]
        if stages:
            return stages
    _refuse_beginning(path)
    raise RunError(f"{path} holds no run: there is no {folder.config.name} in it")


def _refuse_beginning(path: Path) -> None:
    """Say so where a process was stopped while it wrote down what a run, or the runs of a plan, should do."""
    written = (RunFolder(path).split, *path.glob(f"*/{RunFolder(path).config.name}"))
    if path.is_dir() and any(file.is_file() for file in written):
        raise RunError(
            f"{path} holds the beginning of a run that was stopped before its first step: nothing was trained; remove "
            "it and start again"
        )


def last_run(path: Path) -> RunFolder:
    """Return the run in a folder; of a plan's, the last stage that has begun.

    Raises
    ------
    RunError
        If there is none.
    """
    runs = find_runs(path)
    begun = [run for run in runs if run.is_begun]
    return begun[-1] if begun else runs[0]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What a run was told, apart from where it is written.

    Attributes
    ----------
    cache_dir
        The cache it trains from, as an absolute path.
    data_fingerprint, data_digest
        Identity of the cache's preprocessing, and of its content.
    split, split_seed
        Name of the split and the seed that drew it.
    normalization
        ``mean`` and ``std``, three numbers each.
    augmentation
        All parameters, as JSON values; None in runs of earlier versions, which flipped and transposed.
    sampling
        One of :data:`~leukemia_models.training.training_plan.SAMPLINGS`.
    start
        ``scratch``, or the file its first weights came from; a relative one is relative to the run's folder.
    judging
        The :class:`~leukemia_models.training.training_plan.EvaluationSettings` as JSON values.
    stage
        Its name in the plan it belongs to; empty for a run by options alone.
    class_weights
        ``none`` or ``balanced``: where the numbers in the settings come from.
    positive
        The class whose recall is the sensitivity. Empty in runs of earlier versions: the second class.
    seen_before
        Where the split meets what the weights to start from have seen; None where an earlier version did not look.
    """

    model_name: str
    cache_dir: str
    data_fingerprint: str
    data_digest: str
    split: str
    split_seed: int
    batch_size: int
    normalization: Mapping[str, Sequence[float]]
    settings: TrainSettings
    augmentation: Mapping[str, Any] | None = None
    sampling: str = "uniform"
    start: str = "scratch"
    judging: Mapping[str, Any] = field(default_factory=dict)
    stage: str = ""
    class_weights: str = "none"
    positive: str = ""
    seen_before: SeenBefore | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        values = {
            "settings": self.settings.to_dict(),
            "seen_before": None if self.seen_before is None else asdict(self.seen_before),
        }
        return {"format": RUN_FORMAT, "format_version": RUN_FORMAT_VERSION, **vars(self), **values}


_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "model_name": TEXT,
        "cache_dir": TEXT,
        "data_fingerprint": TEXT,
        "data_digest": TEXT,
        "split": TEXT,
        "split_seed": WHOLE_NUMBER,
        "batch_size": COUNT,
        "normalization": OBJECT,
        "augmentation": OBJECT_OR_NONE,
        "sampling": TEXT,
        "start": TEXT,
        "judging": OBJECT,
        "stage": TEXT,
        "class_weights": TEXT,
        "positive": TEXT,
        "seen_before": OBJECT_OR_NONE,
    }
)


def save_config(folder: RunFolder, config: RunConfig) -> None:
    """Write ``run.json`` atomically."""
    write_text(folder.config, json.dumps(config.to_dict(), indent=2) + "\n")


def load_config(folder: RunFolder) -> RunConfig:
    """Read ``run.json``.

    Raises
    ------
    RunError
        If the folder holds no run, or one of another format.
    """
    try:
        content = parse_json(folder.config.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{folder.root} holds no run: there is no {folder.config.name} in it") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{folder.config} cannot be read: {error}") from error
    try:
        if content["format"] != RUN_FORMAT or content["format_version"] not in range(1, RUN_FORMAT_VERSION + 1):
            raise RunError(f"{folder.config}: expected {RUN_FORMAT!r} version {RUN_FORMAT_VERSION}")
        return parse_config(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(f"{folder.config} is damaged ({error!r}): its run cannot be used; start a new one") from error


def parse_config(content: Mapping[str, Any]) -> RunConfig:
    """Return what :meth:`RunConfig.to_dict` gave, after a way through JSON.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is something else.
    """
    content = {name: value for name, value in content.items() if name not in ("format", "format_version")}
    require_kinds(content, _KINDS)
    Normalization.of(**content["normalization"])
    EvaluationSettings.from_dict(content.get("judging", {}))
    seen = content.get("seen_before")
    values = {
        "settings": TrainSettings.from_dict(content["settings"]),
        "seen_before": None if seen is None else SeenBefore.from_dict(seen),
    }
    return RunConfig(**{**content, **values})


def save_split(folder: RunFolder, cache: Cache, codes: SplitCodes) -> None:
    """Write ``split.csv`` atomically, in the order of the ids."""
    write_split(folder.split, cache.table, codes)


def load_split(folder: RunFolder, cache: Cache) -> SplitCodes:
    """Read ``split.csv`` for the samples of a cache; samples it does not know are unused.

    Raises
    ------
    RunError
        If the file is missing or damaged, or the cache holds samples of the split no longer, or with other pixels, of
        another subject or with another label.
    """
    return codes_of_rows(read_split(folder.split), cache)


def codes_of_rows(rows: SplitRows, cache: Cache) -> SplitCodes:
    """Return the parts of a cache's samples, as the rows of a ``split.csv`` tell them.

    Raises
    ------
    RunError
        As :func:`load_split`.
    """
    changes = changes_of_rows(rows, cache.table)
    if changes:
        num_used = sum(row.split != UNUSED_NAME for row in rows.values())
        raise RunError(
            f"{cache.location} is not what the run was begun with: of its {num_used:,} images {'; '.join(changes)}. "
            "Name the cache it was trained from with --cache, or train again"
        )
    codes = {record_id: row.code for record_id, row in rows.items()}
    return np.array([codes.get(record_id, UNUSED) for record_id in cache.table.id_texts], np.int8)
