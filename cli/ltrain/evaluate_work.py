"""The part of ``ltrain evaluate`` that needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cli.console import CONSOLE
from cli.ltrain.result_text import results_text
from cli.output import print_json, print_note, print_reading, print_text
from leukemia_data.caches.opening import LocalCopiesChoice
from leukemia_data.errors import RunError
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.stores.url import Location
from leukemia_models.devices.precision import choose_device
from leukemia_models.evaluation.resampling import BootstrapSettings
from leukemia_models.reports.results import Results
from leukemia_models.runs.evaluate_outside import evaluate_outside, read_outside_set, require_no_part_folder
from leukemia_models.runs.evaluate_part import evaluate_part, positive_note
from leukemia_models.runs.finalize import prepare_network
from leukemia_models.runs.open_run import (
    chosen_tta,
    known_samples_of_run,
    open_checkpoint,
    open_run_cache,
    split_of_run,
)
from leukemia_models.runs.run_config import load_config
from leukemia_models.runs.run_folder import FINAL, RunFolder, last_run
from leukemia_models.runs.run_split import SplitCache
from leukemia_models.training.batchnorm_report import RUNNING
from leukemia_models.training.checkpoint import Checkpoint
from leukemia_models.training.training_plan import EvaluationSettings


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """The command line."""

    run: Path
    images: tuple[ImagePlace, ...]
    part: str
    out: Path | None
    which: str
    tta: str | None
    tta_average: str | None
    batchnorm: str | None
    draws: int
    for_excel: bool
    root: ImagePlace | None
    allow_outside: bool
    reading: ReadingOptions
    cache: Location | None
    stage_dir: Path | None
    stage_gb: float | None
    batch_size: int
    device: str
    as_json: bool

    @property
    def changes_evaluation(self) -> bool:
        """Whether the network is asked in another way than the run was judged."""
        return any(option is not None for option in (self.tta, self.tta_average, self.batchnorm))

    def out_dir(self, folder: RunFolder, judged: str) -> Path:
        """Where the results go: as the user says, else a folder of the run, named by what is judged and how."""
        return self.out if self.out is not None else folder.part(self._folder_name(judged))

    def _folder_name(self, judged: str) -> str:
        words = [self.which] if self.which != FINAL or self.changes_evaluation else []
        words += [
            option.replace(":", "") for option in (self.tta, self.tta_average, self.batchnorm) if option is not None
        ]
        return "-".join([judged, *words])


def evaluate(request: EvaluateRequest) -> None:
    """Judge a run's checkpoint on one part, or on an outside set, and print the result."""
    folder, device = last_run(request.run), choose_device(request.device)
    if request.out is not None:
        require_no_part_folder(request.out, None if request.images else request.part)
    if request.images:
        _evaluate_outside(folder, request, device)
        return
    config = load_config(folder)
    stage = LocalCopiesChoice(request.stage_dir, request.stage_gb)
    with open_run_cache(config, request.cache, stage) as cache:
        _evaluate(folder, split_of_run(folder, config, cache, CONSOLE), request, device)


def _evaluate(folder: RunFolder, data: SplitCache, request: EvaluateRequest, device: torch.device) -> None:
    checkpoint = open_checkpoint(folder, request.which, CONSOLE)
    if request.changes_evaluation:
        checkpoint = _prepared_anew(checkpoint, folder, data, request, device)
    out_dir = request.out_dir(folder, request.part)
    results = evaluate_part(
        checkpoint,
        data,
        request.part,
        out_dir,
        device=device,
        batch_size=request.batch_size,
        bootstrap=BootstrapSettings(num_draws=request.draws),
        console=CONSOLE,
        replaces_others=False,
        for_excel=request.for_excel,
    )
    _tell(request, checkpoint, request.part, out_dir, results, {})


def _evaluate_outside(folder: RunFolder, request: EvaluateRequest, device: torch.device) -> None:
    checkpoint = open_checkpoint(folder, request.which, CONSOLE)
    stage = LocalCopiesChoice(request.stage_dir, request.stage_gb)
    outside = read_outside_set(
        request.images,
        checkpoint.info.classes,
        checkpoint.info.positive,
        root=request.root,
        allow_outside=request.allow_outside,
        options=request.reading,
    )
    print_note(f"{outside.name}: {len(outside.rows):,} images")
    print_reading(outside.lines)
    if request.changes_evaluation:
        config = load_config(folder)
        with open_run_cache(config, request.cache, stage) as cache:
            checkpoint = _prepared_anew(
                checkpoint, folder, split_of_run(folder, config, cache, CONSOLE), request, device
            )
    out_dir = request.out_dir(folder, outside.name)
    found = evaluate_outside(
        checkpoint,
        outside,
        known_samples_of_run(folder, checkpoint, request.cache, stage, need_source=True),
        out_dir,
        device=device,
        batch_size=request.batch_size,
        bootstrap=BootstrapSettings(num_draws=request.draws),
        console=CONSOLE,
        for_excel=request.for_excel,
    )
    more = {"known": found.num_known, "failed": list(found.failures)}
    _tell(request, checkpoint, outside.name, out_dir, found.results, more)
    if found.failures:
        raise RunError(
            f"{len(found.failures)} of {len(outside.rows)} images could not be used and are not judged (listed above)"
        )


def _tell(
    request: EvaluateRequest,
    checkpoint: Checkpoint,
    judged: str,
    out_dir: Path,
    results: Results,
    more: Mapping[str, Any],
) -> None:
    if request.as_json:
        shown = {"run": str(request.run), "part": judged, "out": str(out_dir), **more, "results": results.to_dict()}
        print_json(shown)
        return
    note = positive_note(checkpoint.info)
    if note:
        print_note(f"note: {note}")
    print_text(results_text({judged: results}))
    print_text(f"Written to {out_dir}")


def _prepared_anew(
    checkpoint: Checkpoint, folder: RunFolder, data: SplitCache, request: EvaluateRequest, device: torch.device
) -> Checkpoint:
    """Decide again what was decided after training, from the weights that training left."""
    decided = checkpoint.info.judging or {}
    tta = chosen_tta(checkpoint.info, request.tta, request.tta_average)
    batchnorm = request.batchnorm or decided.get("batchnorm", {}).get("mode", RUNNING)
    base = open_checkpoint(folder, decided["checkpoint"], CONSOLE) if decided else checkpoint
    settings = EvaluationSettings(tta=tta, batchnorm=batchnorm)
    return prepare_network(
        base, data, settings, device=device, batch_size=request.batch_size, console=CONSOLE
    ).checkpoint
