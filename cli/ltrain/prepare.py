"""Begin runs or take them up again: everything that can be wrong is found before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cli.ltrain.batch_shares import require_micro_batches
from cli.ltrain.drafts import Machine, RunDraft, check_room, draft_runs
from cli.ltrain.run_info import checkpoint_info
from cli.ltrain.train_request import TrainRequest
from cli.options import option_name
from cli.output import print_note
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.errors import RunError, UsageError
from leukemia_data.files.atomic import PARTIAL_SUFFIX, write_text
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.splitting.splits import split_indices
from leukemia_models.runs.open_run import open_run_cache
from leukemia_models.runs.run_config import RunConfig, load_config, save_config
from leukemia_models.runs.run_data import holds_data
from leukemia_models.runs.run_folder import FINAL, PLAN_FILE_NAME, RunFolder, find_runs, is_kfold, stage_folder_name
from leukemia_models.runs.run_split import TEST, VALID, SplitCache, write_split
from leukemia_models.runs.start_weights import split_of_run
from leukemia_models.training.checkpoint import load_checkpoint, require_trainable
from leukemia_models.training.checkpoint_match import require_same_run
from leukemia_models.training.plan_file import plan_path
from leukemia_models.training.run_state import require_extended, with_length
from leukemia_models.training.training_plan import SAMPLINGS, TrainingPlan

FREE_ON_RESUME = frozenset(
    {
        "out",
        "resume",
        "resume_if_begun",
        "device",
        "epochs",
        "extend",
        "accumulate",
        "as_json",
        "cache",
        "stage_dir",
        "stage_gb",
        "residency",
        "num_threads",
        "save_minutes",
        "wait_minutes",
        "check",
    }
)


@dataclass(frozen=True)
class Run:
    """A run that is ready to be trained: its folder, its settings, its samples."""

    folder: RunFolder
    config: RunConfig
    data: SplitCache

    @property
    def plan_dir(self) -> Path:
        """The folder around the stages of its plan; of a run by options alone, its own."""
        return self.folder.root.parent if self.config.stage else self.folder.root

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and all its parts are judged; the final checkpoint is written before them."""
        return self.folder.checkpoint(FINAL).is_file() and all(
            is_evaluated(self.folder, part) for part in (VALID, TEST) if self._has_labels(part)
        )

    def _has_labels(self, part: str) -> bool:
        labels = self.data.cache.table.labels[split_indices(self.data.codes, part)]
        return bool((labels != UNKNOWN_LABEL).any())


def is_evaluated(folder: RunFolder, part: str) -> bool:
    """Whether everything about a part is written."""
    return all((folder.part(part) / name).is_file() for name in ("predictions.csv", "results.json", "summary.md"))


def begin_runs(plan: TrainingPlan, request: TrainRequest, machine: Machine) -> list[Run]:
    """Check a plan whole, then write the settings of all its runs."""
    drafts = draft_runs(plan, request, machine)
    root = request.out if request.out is not None else free_folder(_folder_name(plan, drafts[0].config))
    require_empty(root)
    return write_runs(plan, request, drafts, root)


def write_runs(plan: TrainingPlan, request: TrainRequest, drafts: Iterable[RunDraft], root: Path) -> list[Run]:
    """Write the settings of a plan's runs below `root`; the plan itself comes last and makes the folder whole."""
    runs = []
    for number, draft in enumerate(drafts):
        folder = RunFolder(root / stage_folder_name(number, draft.config.stage) if plan.is_staged else root)
        folder.root.mkdir(parents=True, exist_ok=True)
        write_split(folder.split, draft.data.cache.table, draft.data.codes)
        write_text(folder.augmentation, draft.augmentation.to_toml())
        save_config(folder, draft.config)
        runs.append(Run(folder, draft.config, draft.data))
    if plan.is_staged and request.plan is not None:
        scale = f"# epochs-scale {request.epochs_scale:g}\n" if request.epochs_scale != 1 else ""
        write_text(root / PLAN_FILE_NAME, scale + plan_path(request.plan).read_text(encoding="utf-8-sig"))
    return runs


def require_empty(root: Path) -> None:
    """Raise UsageError if there is something at `root` already."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} is not empty: go on with it by --resume, or name another --out")


def free_folder(name: str) -> Path:
    """``runs/NAME``, numbered when that is taken."""
    base = Path("runs") / name
    numbered = (base.with_name(f"{base.name}-{number}") for number in range(2, 10_000))
    return next(path for path in (base, *numbered) if not path.exists())


def _folder_name(plan: TrainingPlan, first: RunConfig) -> str:
    """``resnet18-128px-subject-seed0``, or with a plan's name in place of network and size."""
    size = Path(first.cache_dir).name.split("-")[0]
    what = plan.name if plan.is_staged else f"{first.model_name}-{size}px"
    seeds = seeds_in_name(first.settings.seed, first.split_seed)
    return f"{what}-{parse_split(first.split).file_name}-{seeds}"


def seeds_in_name(seed: int, split_seed: int) -> str:
    """``seed3``, with the split's seed where that is not 0: ``seed3-split1``."""
    return f"seed{seed}-split{split_seed}" if split_seed else f"seed{seed}"


def take_up_runs(request: TrainRequest, machine: Machine) -> list[Run]:
    """Read the settings of the runs in --out; only a length may change, and what has no part in the numbers."""
    if request.out is None:
        raise UsageError("--resume needs --out: the folder of the run to go on with")
    require_free_options(request)
    if is_kfold(request.out):
        raise UsageError(f"{request.out} is a cross-validation: go on with `ltrain kfold --out {request.out} --resume`")
    folders = find_runs(request.out)
    if "epochs" in request.given and len(folders) > 1:
        raise UsageError("--epochs gives one run another length; the stages of a plan keep theirs")
    runs = [_take_up(folder, request, machine) for folder in folders]
    clear_leftovers(request.out)
    return runs


def require_free_options(request: TrainRequest) -> None:
    """Raise UsageError if the user gave an option that a run has decided already."""
    changed = sorted(request.given - FREE_ON_RESUME)
    if changed:
        names = ", ".join(map(option_name, changed))
        raise UsageError(f"--resume takes the run's own settings: leave out {names}")


def _take_up(folder: RunFolder, request: TrainRequest, machine: Machine) -> Run:
    config = load_config(folder)
    if config.augmentation is None:
        raise RunError(
            f"{folder.root} was begun by an earlier version, whose augmentation drew other numbers: it can be judged "
            "and used, but not gone on with; start a new run"
        )
    _check_streams(folder, config, config.augmentation)
    cache = open_run_cache(config, request.cache if "cache" in request.given else None, request.stage_choice)
    if config.positive and config.positive not in cache.manifest.classes:
        raise RunError(f"{folder.config} is damaged (no class {config.positive!r}): start a new run")
    data = split_of_run(folder, config, cache)
    if not holds_data(cache, config.data_digest):
        raise RunError(
            f"{cache.location} holds other images than when the run began, beside the run's own: a resumed run would "
            "not be the same; name the cache as it was with --cache, or start a new run"
        )
    check_room(request, data, machine)
    if "accumulate" in request.given:
        config = replace(config, settings=replace(config.settings, accumulate=request.accumulate))
    require_micro_batches(config.batch_size, len(data.numbers("train")), config.settings, machine.num_ranks)
    if "epochs" in request.given and request.stage.epochs != config.settings.epochs:
        config = _with_epochs(folder, config, data, request.stage.epochs, request.extend)
    elif "extend" in request.given:
        require_extended(config.settings, request.extend)
    if "accumulate" in request.given:
        save_config(folder, config)
    return Run(folder, config, data)


def _check_streams(folder: RunFolder, config: RunConfig, stored: Mapping[str, Any]) -> None:
    """Refuse settings of the stream that nobody could have given; say so if their readable copy was changed since."""
    try:
        augmentation = Augmentation.from_dict(stored)
    except (UsageError, AttributeError, TypeError) as error:
        raise RunError(f"{folder.config} is damaged ({error}): start a new run") from error
    if config.sampling not in SAMPLINGS:
        raise RunError(f"{folder.config} is damaged (unknown sampling {config.sampling!r}): start a new run")
    path = folder.augmentation
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != augmentation.to_toml():
        print_note(
            f"warning: {path} was changed after the run began. The run goes on with the augmentation it began with, "
            f"which {folder.config.name} holds; for another one start a new run"
        )


def _with_epochs(folder: RunFolder, config: RunConfig, data: SplitCache, epochs: int, extend: str) -> RunConfig:
    """Give a run another length, not below the epochs that it has begun."""
    state = None
    if folder.is_begun:
        checkpoint = load_checkpoint(folder.checkpoint("last"))
        require_trainable(checkpoint)
        # Before run.json is changed: a refused command changes nothing.
        require_same_run(checkpoint, checkpoint_info(config, data))
        state = checkpoint.state
    changed = with_length(config.settings, state, epochs, extend)
    print_note(f"note: {changed.note}")
    config = replace(config, settings=changed.settings)
    save_config(folder, config)
    return config


def clear_leftovers(root: Path) -> None:
    """Remove what a killed process was writing: files that never got their name, some as large as a checkpoint."""
    for leftover in root.rglob(f"*{PARTIAL_SUFFIX}"):
        leftover.unlink(missing_ok=True)
