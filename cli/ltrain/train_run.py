"""Train one run: join its streams, network and recorder, then judge what came of it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from cli.console import CONSOLE
from cli.ltrain.batch_shares import batches_in_words, images_at_a_time
from cli.ltrain.prepare import Run
from cli.ltrain.recorder import Recorder
from cli.ltrain.run_faults import explained_faults
from cli.ltrain.run_info import checkpoint_info
from cli.ltrain.run_streams import clean_stream, make_augmenter, train_stream, valid_stream
from cli.ltrain.train_request import TrainRequest
from cli.output import print_note
from leukemia_data.splitting.seen_samples import SeenSamples
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.streams.loader import BatchStream
from leukemia_models.devices.distributed import Ranks
from leukemia_models.networks.registry import build_model, count_parameters
from leukemia_models.reports.results import Results, start_cautions
from leukemia_models.runs.finalize import finalize_run
from leukemia_models.runs.run_config import RunConfig
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.start_weights import seen_by_run
from leukemia_models.training.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    load_training_weights,
    load_weights_file,
)
from leukemia_models.training.checkpoint_file import checkpoint_bytes
from leukemia_models.training.checkpoint_match import require_same_network, require_same_run
from leukemia_models.training.run_state import TrainState
from leukemia_models.training.train import Observer, fit
from leukemia_models.training.training_plan import SCRATCH, EvaluationSettings


def train_run(run: Run, request: TrainRequest, device: torch.device, ranks: Ranks) -> dict[str, Results]:
    """Train a run to its end, from its last checkpoint if there is one, and judge it on the first rank.

    Returns
    -------
    dict of str to Results
        By part; empty on the other ranks.
    """
    model = build_model(run.config.model_name, len(run.data.cache.manifest.classes), seed=run.config.settings.seed)
    start = _load_start(run, model, ranks)
    results: dict[str, Results] = {}

    def judge() -> None:
        if ranks.is_first:
            results.update(_evaluate(run, device))

    with explained_faults(run, request, device, ranks):
        _fit(run, request, model, start, device, ranks)
        ranks.run_on_all(judge)
    if ranks.is_first and run.data.cache.traffic_text:
        print_note(run.data.cache.traffic_text)
    return results


def _load_start(run: Run, model: nn.Module, ranks: Ranks) -> Checkpoint | None:
    """Give the network its weights, and return the checkpoint to go on from; None at a run's beginning.

    The first rank reads the file for all: others may not see the run's folder.
    """
    is_begun = ranks.broadcast_flag(run.folder.is_begun)
    if not is_begun and run.config.start == SCRATCH:
        return None
    path = run.folder.checkpoint("last") if is_begun else _start_path(run.folder, run.config.start)
    data = ranks.broadcast_bytes(lambda: checkpoint_bytes(path)) if ranks.world_size > 1 else None
    return ranks.run_on_all(lambda: _take_up(run, model, path, data) if is_begun else _begin(run, model, path, data))


def _take_up(run: Run, model: nn.Module, path: Path, data: bytes | None) -> Checkpoint:
    checkpoint = load_checkpoint(path, data)
    require_same_run(checkpoint, checkpoint_info(run.config, run.data))
    load_training_weights(model, checkpoint)
    return checkpoint


def _begin(run: Run, model: nn.Module, path: Path, data: bytes | None) -> None:
    config, classes = run.config, run.data.cache.manifest.classes
    load_weights_file(model, path, lambda found: require_same_network(found, config.model_name, classes), data)


def _start_path(folder: RunFolder, start: str) -> Path:
    # Joined to a folder, an absolute path stays what it is.
    return folder.root / start


def _fit(
    run: Run, request: TrainRequest, model: nn.Module, start: Checkpoint | None, device: torch.device, ranks: Ranks
) -> None:
    info = checkpoint_info(run.config, run.data)
    given = (run, request, device, ranks)
    training, validation, clean = ranks.run_on_all(
        lambda: (train_stream(*given), valid_stream(*given), clean_stream(*given))
    )
    with ExitStack() as closing:
        for stream in filter(None, (training, validation, clean)):
            closing.enter_context(stream)
        observer = Observer()
        if ranks.is_first:
            _announce(run, model, device, ranks, training)
            observer = recorder = _recorder(run, request, replace(info, seen=_seen(run, start)), model)
            closing.push(lambda kind, *_: recorder.close(is_failing=kind is not None))
            if start is not None:
                print_note(_going_on(start.state))
                recorder.on_resume(start.state)
        fit(
            model,
            training,
            validation,
            run.config.settings,
            info.normalization,
            make_augmenter(run, device),
            device,
            observer,
            start.state if start is not None else None,
            ranks=ranks,
            clean_source=clean,
        )


def _seen(run: Run, start: Checkpoint | None) -> SeenSamples:
    """What the weights will have seen; a checkpoint to go on from knows it, if it is not of an earlier version."""
    if start is not None and start.info.seen is not None:
        return start.info.seen
    return seen_by_run(run.folder, run.config, run.data)


def _recorder(run: Run, request: TrainRequest, info: CheckpointInfo, model: nn.Module) -> Recorder:
    epochs, stamp = run.config.settings.epochs, run.data.leaks.stamp
    return Recorder(run.folder, info, model, epochs, stamp, request.save_minutes, time.monotonic)


def _going_on(start: TrainState) -> str:
    inside = f" and {start.progress.steps_done} steps of the next one" if start.progress else ""
    return f"going on after {start.epochs_done} epochs{inside}"


def _announce(run: Run, model: nn.Module, device: torch.device, ranks: Ranks, stream: BatchStream) -> None:
    config, data = run.config, run.data
    summary = data.summary("train")
    parts = ", ".join(f"{name} {sum(counts.images_per_class):,}" for name, counts in summary.parts.items())
    processes = f", {ranks.world_size} processes" if ranks.world_size > 1 else ""
    augmentation = (config.augmentation or {}).get("name", "none")
    optimizer, schedule = config.settings.optimizer, config.settings.schedule
    batches = batches_in_words(config, ranks.world_size)
    print_note(
        f"{config.model_name} ({count_parameters(model) / 1e6:.2f} M parameters) on {device}{processes}, "
        f"{data.cache.location} ({data.cache.size_px} px)\n"
        f"split {config.split}{_seed_text(config)}: {data.leaks.stamp}; images: {parts}\n"
        f"{optimizer.name}, learning rate {optimizer.peak_lr:g} ({schedule.name}), {batches}; "
        f"start: {config.start}\n"
        f"training pixels: {stream.residency.reason}; augmentation {augmentation}, sampling {config.sampling}\n"
        f"run: {run.folder.root}"
    )
    for doubt in start_cautions(data.leaks):
        print_note(f"warning: {doubt.text}")
    if config.settings.amp and device.type != "cuda":
        print_note(f"note: mixed precision is for CUDA only; on {device} the run computes in 32 bits")


def _seed_text(config: RunConfig) -> str:
    is_drawn = parse_split(config.split).is_drawn
    return f" (split seed {config.split_seed}; --split-seed draws others)" if is_drawn else ""


def _evaluate(run: Run, device: torch.device) -> dict[str, Results]:
    judging = EvaluationSettings.from_dict(run.config.judging)
    return finalize_run(
        run.folder,
        run.data,
        evaluation=judging,
        device=device,
        batch_size=images_at_a_time(run.config),
        console=CONSOLE,
    )
