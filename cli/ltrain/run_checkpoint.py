"""The network of a finished run, and the views it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import NoneType
from typing import Any

from cli.output import print_note
from leukemia_data.errors import RunError, UsageError
from leukemia_models.evaluation.predict import LOGITS, Tta, parse_tta
from leukemia_models.runs.evaluate_part import evaluation_calibration, evaluation_tta
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.batchnorm_report import require_batchnorm_mode
from leukemia_models.training.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint


def open_checkpoint(folder: RunFolder, which: str) -> Checkpoint:
    """Read a run's checkpoint; ``final`` is ``best`` where the run has no final one.

    Raises
    ------
    RunError
        If it is missing or damaged.
    """
    if which == "final" and not folder.checkpoint("final").is_file() and folder.checkpoint("best").is_file():
        print_note(
            f"{folder.root} has no final checkpoint (the run is not finished, or of an earlier version): best is used"
        )
        which = "best"
    checkpoint = load_checkpoint(folder.checkpoint(which))
    try:
        _require_evaluation(checkpoint.info.judging or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{checkpoint.path} is damaged: how its network is judged cannot be read ({error!r}); use --checkpoint best"
        ) from error
    return checkpoint


def _require_evaluation(judging: Mapping[str, Any]) -> None:
    """Check what :func:`~leukemia_models.runs.finalize.prepare_network` wrote down, after its way through a file."""
    if judging and judging["checkpoint"] not in ("best", "last"):
        raise ValueError(f"checkpoint {judging['checkpoint']!r}")
    evaluation_tta(judging)
    calibration = evaluation_calibration(judging)
    if calibration is not None:
        _require_kinds(vars(calibration), fitted_on=str, num_images=int, note=(str, NoneType))
    batchnorm = judging.get("batchnorm", {})
    if batchnorm:
        require_batchnorm_mode(batchnorm["chosen"])
        require_batchnorm_mode(batchnorm.get("mode", batchnorm["chosen"]))
        _require_kinds({"text": None, **batchnorm}, text=(str, NoneType))


def _require_kinds(values: Mapping[str, Any], **kinds: type | tuple[type, ...]) -> None:
    for name, kind in kinds.items():
        if not isinstance(values[name], kind):
            raise TypeError(f"{name} is {values[name]!r:.40}")


def chosen_tta(info: CheckpointInfo, text: str | None, average: str | None) -> Tta:
    """Return the views that were asked for, else those that the run was judged by.

    Raises
    ------
    UsageError
        If `text` names no views, or an average is asked for where there is one view.
    """
    if text is not None:
        tta = parse_tta(text, average or LOGITS)
    else:
        tta = evaluation_tta(info.judging)
        tta = replace(tta, average=average or tta.average)
    if average is not None and tta.num_views == 1:
        raise UsageError(f"--tta-average {average}: there is only one view of each image; add --tta d4")
    return tta
