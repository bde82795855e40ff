"""Begin runs: claim their folder and write their settings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from leukemia_data.errors import UsageError
from leukemia_data.files.atomic import PARTIAL_SUFFIX, remove_file, write_text
from leukemia_data.files.lock import LOCK_FILES, lock_run
from leukemia_data.scanning.frame_notes import FRAMES_DETAIL, training_facts
from leukemia_models.devices.normalization import Normalization
from leukemia_models.runs.draft_runs import RunDraft
from leukemia_models.runs.run_config import RunConfig, save_config
from leukemia_models.runs.run_folder import FINAL, PLAN_FILE_NAME, RunFolder, is_kfold, stage_folder_name
from leukemia_models.runs.run_split import SPLIT_DIGEST, TEST, VALID, SplitCache, split_digest, write_split
from leukemia_models.training.checkpoint import POSITIVE_DETAIL, CheckpointInfo
from leukemia_models.training.training_plan import TrainingPlan

RUNS_DIR = Path("runs")
"""New folders without a given name are made here, below the current folder."""


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to be trained."""

    folder: RunFolder
    config: RunConfig
    data: SplitCache

    @property
    def plan_dir(self) -> Path:
        """The folder that holds all stages of its plan; its own folder for a run without a plan."""
        return self.folder.root.parent if self.config.stage else self.folder.root

    @property
    def is_fold(self) -> bool:
        """Whether it belongs to a cross-validation, as far as this machine sees its folder."""
        return is_kfold(self.plan_dir.parent)

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and all its labelled parts are evaluated."""
        names = ("predictions.csv", "results.json", "summary.md")
        parts = [self.folder.part(part) for part in (VALID, TEST) if len(self.data.labelled_indices(part))]
        # Written before the parts.
        is_trained = self.folder.checkpoint(FINAL).is_file()
        return is_trained and all((part / name).is_file() for part in parts for name in names)


def checkpoint_info(config: RunConfig, data: SplitCache) -> CheckpointInfo:
    """Return the description that the checkpoints of a run carry."""
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
            **({"start_report": config.start_report} if config.start_report else {}),
            FRAMES_DETAIL: training_facts(manifest.understood),
            **({POSITIVE_DETAIL: config.positive or manifest.classes[-1]} if len(manifest.classes) == 2 else {}),
        },
    )


def claim_folder(out: Path | None, name: str, held: ExitStack, *, clear: bool = False) -> Path:
    """Make the folder of a run, a plan or a cross-validation, and hold its lock.

    Parameters
    ----------
    out
        The folder; None makes ``runs/NAME``, with a number if that exists.
    held
        Releases the lock when it is closed.
    clear
        Remove settings that a killed process left: see :func:`clear_beginning`.

    Raises
    ------
    UsageError
        If `out` is not empty.
    RunError
        If another process is writing to it.
    """
    root = out if out is not None else _new_folder(name)
    if not clear:
        # Before the lock, so that a refused folder stays as it is.
        _require_empty(root)
    held.enter_context(lock_run(root))
    if clear:
        clear_beginning(root)
    # Another process may have written to it before this one had the lock.
    _require_empty(root)
    return root


def write_runs(plan: TrainingPlan, drafts: Sequence[RunDraft], root: Path) -> list[PreparedRun]:
    """Write the settings of a plan's runs below `root`; the plan itself is written last and completes the folder."""
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


def folder_name(plan: TrainingPlan, first: RunDraft, split: str) -> str:
    """Return ``resnet18-128px-SPLIT-seed0``, or with a plan's name instead of network and size.

    The split's seed is added unless it is 0: ``resnet18-128px-SPLIT-seed0-split1``.
    """
    config = first.config
    what = plan.name if plan.is_staged else f"{config.model_name}-{first.data.cache.size_px}px"
    split_seed = f"-split{config.split_seed}" if config.split_seed else ""
    return f"{what}-{split}-seed{config.settings.seed}{split_seed}"


def clear_beginning(root: Path) -> None:
    """Remove what a process killed while it wrote its settings has left; keep a folder that holds anything else."""
    folder = RunFolder(root)
    written = {path.name for path in (folder.config, folder.split, folder.augmentation)} | {PLAN_FILE_NAME}
    files = [path for path in root.rglob("*") if not path.is_dir() and path.name not in LOCK_FILES]
    if any(path.name not in written and not path.name.endswith(PARTIAL_SUFFIX) for path in files):
        return
    for path in files:
        remove_file(path)
    for directory in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        directory.rmdir()


def clear_leftovers(root: Path) -> None:
    """Remove the partial files of a killed process, some as large as a checkpoint."""
    for leftover in root.rglob(f"*{PARTIAL_SUFFIX}"):
        remove_file(leftover)


def _new_folder(name: str) -> Path:
    """Make ``runs/NAME``, with a number if that exists; making the folder claims it."""
    RUNS_DIR.mkdir(parents=True, exist_ok=True)
    for suffix in chain([""], (f"-{number}" for number in count(2))):
        path = RUNS_DIR / f"{name}{suffix}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable: count() is endless")


def _require_empty(root: Path) -> None:
    if root.exists() and (not root.is_dir() or any(path.name not in LOCK_FILES for path in root.iterdir())):
        raise UsageError(f"{root} is not empty: resume it with --resume, or choose another --out")
