"""Begin runs: folders that are claimed, and the value of a run that is ready to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from leukemia_data.errors import UsageError
from leukemia_data.files.atomic import PARTIAL_SUFFIX, write_text
from leukemia_data.files.lock import LOCK_FILES, lock_run
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.scanning.frame_notes import FRAMES_DETAIL, training_facts
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.splitting.splits import split_indices
from leukemia_models.devices.normalization import Normalization
from leukemia_models.runs.draft_runs import RunDraft
from leukemia_models.runs.run_config import RunConfig, save_config
from leukemia_models.runs.run_folder import FINAL, PLAN_FILE_NAME, RunFolder, is_kfold, stage_folder_name
from leukemia_models.runs.run_split import SPLIT_DIGEST, TEST, VALID, SplitCache, split_digest, write_split
from leukemia_models.training.checkpoint import POSITIVE_DETAIL, CheckpointInfo
from leukemia_models.training.training_plan import TrainingPlan


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to be trained: its folder, its settings, its samples."""

    folder: RunFolder
    config: RunConfig
    data: SplitCache

    @property
    def plan_dir(self) -> Path:
        """The folder around the stages of its plan; of a run by options alone, its own."""
        return self.folder.root.parent if self.config.stage else self.folder.root

    @property
    def is_fold(self) -> bool:
        """Whether it belongs to a cross-validation, as far as this machine sees its folder."""
        return is_kfold(self.plan_dir.parent)

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and all its parts are evaluated; the final checkpoint is written before them."""
        return self.folder.checkpoint(FINAL).is_file() and all(
            is_evaluated(self.folder, part) for part in (VALID, TEST) if self._has_labels(part)
        )

    def _has_labels(self, part: str) -> bool:
        labels = self.data.cache.table.labels[split_indices(self.data.codes, part)]
        return bool((labels != UNKNOWN_LABEL).any())


def is_evaluated(folder: RunFolder, part: str) -> bool:
    """Whether everything about a part is written."""
    return all((folder.part(part) / name).is_file() for name in ("predictions.csv", "results.json", "summary.md"))


def checkpoint_info(config: RunConfig, data: SplitCache) -> CheckpointInfo:
    """Describe the network of a run that has these settings and is trained from this cache, split so."""
    manifest = data.cache.manifest
    return CheckpointInfo(
        model_name=config.model_name,
        classes=manifest.classes,
        size_px=manifest.size_px,
        normalization=Normalization.of(**config.normalization),
        recipe=manifest.recipe.to_dict(),
        data_fingerprint=config.data_fingerprint,
        split_kind=config.split,
        settings=config.settings,
        details={
            "batch_size": config.batch_size,
            "split_seed": config.split_seed,
            SPLIT_DIGEST: split_digest(data.cache.table, data.codes),
            "augmentation": config.augmentation,
            "sampling": config.sampling,
            "start": config.start,
            FRAMES_DETAIL: training_facts(manifest.understood),
            POSITIVE_DETAIL: config.positive or manifest.classes[-1],
        },
    )


RUNS_DIR = Path("runs")
"""Where folders are made that nobody named, in the current folder."""


def claim_folder(out: Path | None, name: str, held: ExitStack, *, clear: bool = False) -> Path:
    """Make the folder of a run, a plan or a cross-validation, and hold its lock.

    Parameters
    ----------
    out
        The folder; None makes ``runs/NAME``, numbered where that is taken.
    name
        For a folder that nobody named.
    held
        Releases the lock when it is closed.
    clear
        Remove what a process left that was stopped while it wrote its settings: see :func:`clear_beginning`.

    Raises
    ------
    UsageError
        If there is something in `out` already.
    RunError
        If another process is writing to it.
    """
    root = out if out is not None else _new_folder(name)
    if not clear:
        # Before the lock, so that a folder that is refused stays as it is.
        _require_empty(root)
    held.enter_context(lock_run(root))
    if clear:
        clear_beginning(root)
    # Another process may have written to it before this one had the lock.
    _require_empty(root)
    return root


def write_runs(plan: TrainingPlan, drafts: Sequence[RunDraft], root: Path) -> list[PreparedRun]:
    """Write the settings of a plan's runs below `root`; the plan itself comes last and makes the folder whole."""
    runs = []
    for number, draft in enumerate(drafts):
        folder = RunFolder(root / stage_folder_name(number, draft.config.stage) if plan.is_staged else root)
        folder.root.mkdir(parents=True, exist_ok=True)
        write_split(folder.split, draft.data.cache.table, draft.data.codes)
        write_text(folder.augmentation, draft.augmentation.to_toml())
        save_config(folder, draft.config)
        runs.append(PreparedRun(folder, draft.config, draft.data))
    if plan.is_staged:
        made = f"# {plan.name}: a plan without a file; run.json of each stage holds its settings\n"
        write_text(root / PLAN_FILE_NAME, plan.source_text or made)
    return runs


def folder_name(plan: TrainingPlan, first: RunConfig) -> str:
    """Return ``resnet18-128px-subject-seed0``, or with a plan's name in place of network and size."""
    size = Path(first.cache_dir).name.split("-")[0]
    what = plan.name if plan.is_staged else f"{first.model_name}-{size}px"
    return f"{what}-{parse_split(first.split).file_name}-{seeds_in_name(first.settings.seed, first.split_seed)}"


def seeds_in_name(seed: int, split_seed: int) -> str:
    """Return ``seed3``, with the split's seed where that is not 0: ``seed3-split1``."""
    return f"seed{seed}-split{split_seed}" if split_seed else f"seed{seed}"


def clear_beginning(root: Path) -> None:
    """Remove what a process left that was killed while it wrote its settings: nothing was trained yet.

    A folder that holds anything else is left alone.
    """
    folder = RunFolder(root)
    written = {path.name for path in (folder.config, folder.split, folder.augmentation)} | {PLAN_FILE_NAME}
    files = [path for path in root.rglob("*") if not path.is_dir() and path.name not in LOCK_FILES]
    if any(path.name not in written and not path.name.endswith(PARTIAL_SUFFIX) for path in files):
        return
    for path in files:
        path.unlink()
    for directory in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        directory.rmdir()


def clear_leftovers(root: Path) -> None:
    """Remove what a killed process was writing: files that never got their name, some as large as a checkpoint."""
    for leftover in root.rglob(f"*{PARTIAL_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def _new_folder(name: str) -> Path:
    """Make ``runs/NAME``, numbered when that is taken: whoever makes a folder has it for himself."""
    RUNS_DIR.mkdir(parents=True, exist_ok=True)
    for suffix in chain([""], (f"-{number}" for number in count(2))):
        path = RUNS_DIR / f"{name}{suffix}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable: numbers do not end")


def _require_empty(root: Path) -> None:
    """Raise UsageError if there is something at `root` already, beside the lock."""
    if root.exists() and (not root.is_dir() or any(path.name not in LOCK_FILES for path in root.iterdir())):
        raise UsageError(f"{root} is not empty: go on with it by --resume, or name another --out")
