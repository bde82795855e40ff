"""The folder of a run: its files, and which folders hold runs. Loads no library, so that wrong paths fail fast.

::

    runs/NAME/
      run.json            settings, cache and split; written before the first epoch
      split.csv           id, subject, label, split and pixel digest of every sample
      augment.toml        the augmentation, as --augment takes it
      last.safetensors    after every epoch and at intervals within one; training resumes from it
      best.safetensors    weights of the best epoch
      final.safetensors   weights for evaluation and use: the best ones, with the BatchNorm statistics chosen for them
      history.csv         one row per epoch, and history.png
      <part>/             results.json, summary.md, figures, predictions.csv of valid, test, ...

The folder of a plan holds a run for each stage, ``01-<stage>``, ``02-<stage>``, and the plan as ``plan.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leukemia_data.errors import RunError, UsageError

PLAN_FILE_NAME = "plan.toml"
KFOLD_FILE_NAME = "kfold.json"
RESULTS_NAME = "results.json"
RESULT_NAMES = frozenset({RESULTS_NAME, "summary.md", "predictions.csv", "subjects.csv"})
"""Files of an evaluated part; ``results.json`` identifies the others."""
FINAL = "final"
"""Name of the checkpoint of a finished run."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of a run's files."""

    root: Path

    @property
    def config(self) -> Path:
        """Settings of the run."""
        return self.root / "run.json"

    @property
    def split(self) -> Path:
        """Part of each sample."""
        return self.root / "split.csv"

    @property
    def augmentation(self) -> Path:
        """Augmentation of the training images."""
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
        """Return the path of the checkpoint ``last``, ``best`` or ``final``."""
        return self.root / f"{which}.safetensors"

    def part(self, name: str) -> Path:
        """Return the folder of an evaluated part."""
        return self.root / name

    @property
    def is_run(self) -> bool:
        """Whether a run began here."""
        return self.config.is_file()

    @property
    def is_begun(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.checkpoint("last").is_file()


def stage_folder_name(number: int, stage: str) -> str:
    """Return the name of a stage's folder: ``02-large`` for number 1."""
    return f"{number + 1:02d}-{stage}"


def is_begun(path: Path) -> bool:
    """Whether a folder holds the settings of a run, or of all runs of a plan."""
    return RunFolder(path).is_run or (path / PLAN_FILE_NAME).is_file()


def is_kfold(path: Path) -> bool:
    """Whether a folder holds a k-fold."""
    return (path / KFOLD_FILE_NAME).is_file()


def is_of_run(path: Path) -> bool:
    """Whether a path is that of a file that a run, a plan or an evaluation writes."""
    folder = RunFolder(path.parent)
    own = {each.name for each in (folder.config, folder.split, folder.augmentation, folder.history)} | {PLAN_FILE_NAME}
    if is_begun(path.parent) and (path.name in own or path.suffix == ".safetensors"):
        return True
    return path.name in RESULT_NAMES and (path.parent / RESULTS_NAME).is_file()


def find_runs(path: Path) -> list[RunFolder]:
    """Return the run in a folder, or the runs of all stages of a plan, in order.

    Raises
    ------
    UsageError
        If `path` does not exist.
    RunError
        If it holds no run.
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
    # Of a process that was killed while it wrote the settings of a run, or of the runs of a plan.
    settings = (folder.split, *path.glob(f"*/{folder.config.name}"))
    if path.is_dir() and any(file.is_file() for file in settings):
        raise RunError(
            f"{path} holds the beginning of a run that was stopped before its first step: nothing was trained; remove "
            "it and start again"
        )
    raise RunError(f"{path} holds no run: there is no {folder.config.name} in it")


def last_run(path: Path) -> RunFolder:
    """Return the run in a folder, or the last begun stage of a plan; raises as :func:`find_runs`."""
    runs = find_runs(path)
    begun = [run for run in runs if run.is_begun]
    return begun[-1] if begun else runs[0]
