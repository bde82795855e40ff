"""The network of a finished run, and the views it is shown."""

from __future__ import annotations

from dataclasses import replace

from cli.output import print_note
from leukemia_data.errors import UsageError
from leukemia_models.inference.tta import LOGITS, NO_TTA, Tta, parse_tta
from leukemia_models.learning.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint
from leukemia_models.runs.run_files import RunFolder


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
    return load_checkpoint(folder.checkpoint(which))


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
        judging = info.judging or {}
        tta = Tta.from_dict(judging["tta"]) if "tta" in judging else NO_TTA
        tta = replace(tta, average=average or tta.average)
    if average is not None and tta.num_views == 1:
        raise UsageError(f"--tta-average {average}: there is only one view of each image; add --tta d4")
    return tta
