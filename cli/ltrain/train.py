"""``ltrain`` with options alone: train a network on a cache, then judge it."""

from __future__ import annotations

import os
import time

import click
import torch
from torch import nn

from cli.ltrain.devices import choose_device
from cli.ltrain.prepare import Run, TrainRequest, begin_run, is_begun
from cli.ltrain.recorder import Recorder
from cli.ltrain.run_streams import make_augmenter, train_stream, valid_stream
from cli.ltrain.text import result_lines
from cli.output import print_json, print_note
from leukemia_data.errors import RunError
from leukemia_data.loader import BatchStream
from leukemia_models.checkpoint import CheckpointInfo, load_checkpoint, load_weights
from leukemia_models.judge import judge_part
from leukemia_models.normalization import Normalization
from leukemia_models.observer import Observer
from leukemia_models.ranks import Ranks, joined_ranks, rank_device
from leukemia_models.registry import build_model, count_parameters
from leukemia_models.report import Results
from leukemia_models.run_files import RunFolder
from leukemia_models.run_state import TrainState
from leukemia_models.train import fit


def train(request: TrainRequest) -> None:
    """Prepare or take up a run, train it, judge its best epoch; rank 0 alone writes and speaks."""
    device = rank_device(choose_device(request.device), os.environ)
    with joined_ranks(os.environ, device) as ranks:
        run = begin_run(request, device, ranks)
        model = build_model(run.config.model_name, len(run.data.cache.manifest.classes), seed=run.config.settings.seed)
        start = ranks.together(lambda: _load_start(run.folder, model) if request.resume else None)
        _fit(run, request, model, start, device, ranks)
    if ranks.is_first:
        _report(run.folder, _judge(run, device), request.as_json)


def _fit(
    run: Run, request: TrainRequest, model: nn.Module, start: TrainState | None, device: torch.device, ranks: Ranks
) -> None:
    """Join streams, network and recorder, and train."""
    info = _checkpoint_info(run)
    training, validation = ranks.together(
        lambda: (train_stream(run, request, device, ranks), valid_stream(run, request, device, ranks))
    )
    observer = Observer()
    if ranks.is_first:
        _announce(run, model, device, ranks, training)
        observer = recorder = Recorder(
            run.folder,
            info,
            model,
            run.config.settings.epochs,
            run.data.leaks.stamp,
            request.save_minutes,
            time.monotonic,
        )
    try:
        with training, validation:
            fit(
                model,
                training,
                validation,
                run.config.settings,
                info.normalization,
                make_augmenter(run, device),
                device,
                observer,
                start,
                ranks=ranks,
            )
    except KeyboardInterrupt:
        raise RunError(f"interrupted: go on with `ltrain --out {run.folder.root} --resume`") from None
    finally:
        if ranks.is_first:
            recorder.close()


def _checkpoint_info(run: Run) -> CheckpointInfo:
    config, manifest = run.config, run.data.cache.manifest
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
            "augmentation": config.augmentation,
            "sampling": config.sampling,
        },
    )


def _load_start(folder: RunFolder, model: nn.Module) -> TrainState | None:
    """Load the last checkpoint's weights and return its state; None when there is none yet."""
    if not is_begun(folder):
        return None
    checkpoint = load_checkpoint(folder.checkpoint("last"))
    load_weights(model, checkpoint)
    return checkpoint.state


def _announce(run: Run, model: nn.Module, device: torch.device, ranks: Ranks, stream: BatchStream) -> None:
    config, data = run.config, run.data
    summary = data.summary("valid")
    parts = ", ".join(f"{name} {sum(counts.images_per_class):,}" for name, counts in summary.parts.items())
    processes = f", {ranks.world_size} processes" if ranks.world_size > 1 else ""
    augmentation = (config.augmentation or {}).get("name", "none")
    print_note(
        f"{config.model_name} ({count_parameters(model) / 1e6:.2f} M parameters) on {device}{processes}, "
        f"{data.cache.directory} ({data.cache.size_px} px)\n"
        f"split {config.split}: {summary.stamp}; images: {parts}\n"
        f"training pixels: {stream.residency.reason}; augmentation {augmentation}, sampling {config.sampling}\n"
        f"run: {run.folder.root}"
    )


def _judge(run: Run, device: torch.device) -> dict[str, Results]:
    """Judge the best epoch on the validation and, where there is a labelled one, the test part."""
    folder, data = run.folder, run.data
    checkpoint = load_checkpoint(folder.checkpoint("best"))
    results = {}
    for part in ("valid", "test"):
        summary = data.summary(part)
        if sum(summary.parts[part].images_per_class) > 0:
            results[part] = judge_part(
                checkpoint, data, part, folder.part(part), device=device, batch_size=run.config.batch_size
            )
    return results


def _report(folder: RunFolder, results: dict[str, Results], as_json: bool) -> None:
    if as_json:
        print_json({"run": str(folder.root), "results": {part: result.to_dict() for part, result in results.items()}})
        return
    for part, result in results.items():
        click.echo(result_lines(part, result))
    click.echo(f"Look at {folder.history_figure} and {folder.part('valid') / 'summary.md'}")
