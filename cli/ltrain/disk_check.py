"""Room for the checkpoints of runs, looked for before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from cli.output import format_bytes, print_note
from leukemia_data.errors import RunError
from leukemia_data.files.limits import free_disk_bytes
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.run_config import RunConfig
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.checkpoint_file import CheckpointRoom, checkpoint_room


def require_disk_room(runs: Iterable[tuple[RunFolder, RunConfig]]) -> None:
    """Compare what the checkpoints of runs will take with what is free; those that are there already are replaced.

    Parameters
    ----------
    runs : iterable of (RunFolder, RunConfig)
        Those that are not finished, in order, on one disk.

    Raises
    ------
    RunError
        If the first of them will find no room. If only a later one will not, a warning is printed.
    """
    taken_before = 0
    for number, (folder, config) in enumerate(runs):
        room = _room(config)
        there = sum(path.stat().st_size for path in folder.root.glob("*.safetensors"))
        needed = taken_before + max(room.max_bytes - there, room.resumable_bytes)
        free = free_disk_bytes(folder.root)
        if free is not None and needed > free:
            text = f"the checkpoints of {folder.root} need {format_bytes(needed)}, {format_bytes(free)} are free"
            if number == 0:
                raise RunError(f"{text}: make room and go on with --resume, or name another --out")
            print_note(f"warning: with those of the runs before it, {text}: make room while they are trained")
            return
        taken_before += max(room.kept_bytes - there, 0)


def _room(config: RunConfig) -> CheckpointRoom:
    # Without memory for it, and without the time that first weights take.
    with torch.device("meta"):
        model = build_model(config.model_name, config.settings.num_classes)
    return checkpoint_room(model, config.settings)
