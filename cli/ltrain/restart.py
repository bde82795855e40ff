"""One command line for a run's beginning and for going on with it, as launchers and batch systems start it again.

Whether a run is begun or gone on with is then told by its folder alone. What is in the folder must be what this command
line would have begun; nothing is ever written over a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cli.ltrain.drafts import RunDraft
from cli.ltrain.prepare import FREE_ON_RESUME, Run
from cli.ltrain.run_info import checkpoint_info
from cli.ltrain.train_request import TrainRequest
from leukemia_data.errors import UsageError
from leukemia_data.files.atomic import PARTIAL_SUFFIX
from leukemia_models.runs.run_folder import PLAN_FILE_NAME, RunFolder
from leukemia_models.training.checkpoint_match import differences

# The count is one agent's own: another one, that came later, begins at 0.
_RESTARTS = ("TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RESTART_COUNT")


def may_go_on(request: TrainRequest, environment: Mapping[str, str]) -> bool:
    """Whether this command line goes on with a run where one is begun: as it says, or as torchrun may start it again.

    Raises
    ------
    UsageError
        If a later process could not find the run.
    """
    if request.resume:
        return False
    is_restarted = any(environment.get(name, "0") != "0" for name in _RESTARTS)
    if not is_restarted and not request.resume_if_begun:
        return False
    if request.out is None:
        what = "--resume-if-begun" if request.resume_if_begun else "torchrun --max-restarts"
        raise UsageError(f"{what} needs --out: whoever is started again must find the run")
    return True


def as_resumed(request: TrainRequest) -> TrainRequest:
    """The request to go on with what this one would have begun."""
    return replace(request, resume=True, given=(request.given & FREE_ON_RESUME) - {"epochs"})


def require_as_drafted(runs: Sequence[Run], drafts: Sequence[RunDraft], root: Path) -> None:
    """Refuse to go on with runs that this command line would not have begun.

    Raises
    ------
    UsageError
        With all differences of the first that differs.
    """
    found = [] if len(runs) == len(drafts) else [f"stages: {len(runs)} instead of {len(drafts)}"]
    for run, draft in zip(runs, drafts, strict=False):
        found = found or list(_differences(run, draft))
    if found:
        raise UsageError(
            f"{root} was begun with other settings: {'; '.join(found)}. Name another --out, or go on with what is "
            f"there by `--out {root} --resume`"
        )


def _differences(run: Run, draft: RunDraft) -> Iterator[str]:
    own, asked = run.config, draft.config
    yield from differences(checkpoint_info(own, run.data), checkpoint_info(asked, draft.data))
    if own.settings.epochs != asked.settings.epochs:
        yield f"--epochs: {own.settings.epochs} instead of {asked.settings.epochs}"
    for name in ("stage", "class_weights", "judging"):
        one, other = getattr(own, name), getattr(asked, name)
        if one != other:
            yield f"{name}: {one} instead of {other}"


def clear_beginning(root: Path) -> None:
    """Remove what a process left that was killed while it wrote down what to do: nothing was trained yet.

    A folder that holds anything else is left alone.
    """
    folder = RunFolder(root)
    written = {path.name for path in (folder.config, folder.split, folder.augmentation)} | {PLAN_FILE_NAME}
    files = [path for path in root.rglob("*") if not path.is_dir()] if root.is_dir() else []
    if any(path.name not in written and not path.name.endswith(PARTIAL_SUFFIX) for path in files):
        return
    for path in files:
        path.unlink()
    for directory in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        directory.rmdir()
