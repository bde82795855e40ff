"""The part of ``ltrain evaluate`` that needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from cli.ltrain.devices import choose_device
from cli.ltrain.judging_progress import watched
from cli.ltrain.result_text import results_text
from cli.ltrain.run_checkpoint import chosen_tta, open_checkpoint
from cli.ltrain.run_data import open_run_cache, split_of_run
from cli.output import print_json, print_text
from cli.stage_options import StageChoice
from leukemia_data.storage.url import Location
from leukemia_models.batchnorm.batchnorm_mode import RUNNING
from leukemia_models.judging.resampling import BootstrapSettings
from leukemia_models.learning.checkpoint import Checkpoint
from leukemia_models.planning.judging_settings import JudgingSettings
from leukemia_models.runs.judge import judge_part
from leukemia_models.runs.preparation import prepare_network
from leukemia_models.runs.run_files import FINAL, RunFolder, last_run, load_config
from leukemia_models.runs.split_cache import SplitCache


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """The command line."""

    run: Path
    part: str
    which: str
    tta: str | None
    tta_average: str | None
    batchnorm: str | None
    draws: int
    cache: Location | None
    stage_dir: Path | None
    stage_gb: float | None
    batch_size: int
    device: str
    as_json: bool

    @property
    def changes_judging(self) -> bool:
        """Whether the network is asked in another way than the run was judged."""
        return any(option is not None for option in (self.tta, self.tta_average, self.batchnorm))

    @property
    def folder_name(self) -> str:
        """Where the results go: the part, and what differs from the run's own judgement."""
        words = [self.which] if self.which != FINAL or self.changes_judging else []
        words += [
            option.replace(":", "") for option in (self.tta, self.tta_average, self.batchnorm) if option is not None
        ]
        return "-".join([self.part, *words])


def evaluate(request: EvaluateRequest) -> None:
    """Judge a run's checkpoint on one part and print the result."""
    folder, device = last_run(request.run), choose_device(request.device)
    config = load_config(folder)
    stage = StageChoice(request.stage_dir, request.stage_gb)
    with open_run_cache(config, request.cache, stage) as cache:
        _judge(folder, split_of_run(folder, config, cache), request, device)


def _judge(folder: RunFolder, data: SplitCache, request: EvaluateRequest, device: torch.device) -> None:
    checkpoint = open_checkpoint(folder, request.which)
    if request.changes_judging:
        checkpoint = _prepared_anew(checkpoint, folder, data, request, device)
    out_dir = folder.part(request.folder_name)
    results = judge_part(
        checkpoint,
        data,
        request.part,
        out_dir,
        device=device,
        batch_size=request.batch_size,
        bootstrap=BootstrapSettings(num_draws=request.draws),
        watch=watched,
        replaces_others=False,
    )
    if request.as_json:
        print_json({"run": str(request.run), "part": request.part, "out": str(out_dir), "results": results.to_dict()})
        return
    print_text(results_text({request.part: results}))
    print_text(f"Written to {out_dir}")


def _prepared_anew(
    checkpoint: Checkpoint, folder: RunFolder, data: SplitCache, request: EvaluateRequest, device: torch.device
) -> Checkpoint:
    """Decide again what was decided after training, from the weights that training left."""
    decided = checkpoint.info.judging or {}
    tta = chosen_tta(checkpoint.info, request.tta, request.tta_average)
    batchnorm = request.batchnorm or decided.get("batchnorm", {}).get("mode", RUNNING)
    base = open_checkpoint(folder, decided["checkpoint"]) if decided else checkpoint
    settings = JudgingSettings(tta=tta, batchnorm=batchnorm)
    return prepare_network(base, data, settings, device=device, batch_size=request.batch_size, watch=watched).checkpoint
