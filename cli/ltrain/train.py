"""``ltrain`` with options alone: train a network on a cache, then judge it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cli.ltrain.devices import choose_device
from cli.ltrain.run_data import data_digest, open_run_cache
from cli.options import option_name
from cli.output import print_json, print_note, progress_bar
from leukemia_data.augment import random_square_views
from leukemia_data.cache import Cache, choose_cache_dir, open_cache
from leukemia_data.errors import RunError, UsageError
from leukemia_data.loader import BatchStream
from leukemia_data.moments import channel_statistics
from leukemia_data.splits import assign_split, check_leaks, parse_split
from leukemia_models.checkpoint import CheckpointInfo, load_checkpoint, load_weights, save_checkpoint
from leukemia_models.figures import draw_history, save_figure
from leukemia_models.history import EpochRecord, TrainHistory
from leukemia_models.judge import SplitCache, judge_part
from leukemia_models.normalization import Normalization, check_normalization
from leukemia_models.optim import OptimizerSettings
from leukemia_models.registry import build_model, count_parameters
from leukemia_models.report import Results, write_history
from leukemia_models.run_files import RunConfig, RunFolder, load_config, load_split, save_config, save_split
from leukemia_models.run_state import TrainSettings, TrainState
from leukemia_models.train import Observer, fit

_GUARD_IMAGES = 256
_NUM_CLASSES = 2
_KEPT_ON_RESUME = {"out", "resume", "device", "epochs", "as_json", "cache"}


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """The command line; `given` names the options that the user set."""

    given: frozenset[str]
    cache: Path
    size_px: int | None
    model_name: str
    epochs: int
    split: str
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    warmup_epochs: float
    seed: int
    device: str
    amp: bool
    out: Path | None
    resume: bool
    as_json: bool


def train(request: TrainRequest) -> None:
    """Prepare or take up a run, train it, judge its best epoch."""
    device = choose_device(request.device)
    folder, config, data = _take_up(request) if request.resume else _prepare(request)
    numbers = data.numbers("train")
    normalization = _train_normalization(data.cache, numbers)
    model = build_model(config.model_name, _NUM_CLASSES, seed=config.settings.seed)
    start = _load_start(folder, model) if request.resume else None
    _announce(folder, config, data, model, device)
    info = CheckpointInfo(
        model_name=config.model_name,
        classes=data.cache.manifest.classes,
        size_px=data.cache.size_px,
        normalization=normalization,
        recipe=data.cache.manifest.recipe.to_dict(),
        data_fingerprint=config.data_fingerprint,
        split_kind=config.split,
        settings=config.settings,
        details={"batch_size": config.batch_size, "split_seed": config.split_seed, "augment": "flips and transposes"},
    )
    stream = partial(BatchStream, data.cache, batch_size=config.batch_size, pin_memory=device.type == "cuda")
    seed = config.settings.seed
    recorder = _Recorder(folder, info, model, data, config.settings.epochs)
    try:
        fit(
            model,
            stream(numbers, seed=seed, drop_last=True),
            stream(data.numbers("valid")),
            config.settings,
            normalization,
            _square_views(seed),
            device,
            recorder,
            start,
        )
    except KeyboardInterrupt:
        raise RunError(f"interrupted: go on with `ltrain --out {folder.root} --resume`") from None
    finally:
        recorder.close()
    results = _judge(folder, data, device, config.batch_size)
    _report(folder, results, request.as_json)


def _prepare(request: TrainRequest) -> tuple[RunFolder, RunConfig, SplitCache]:
    """Check everything that can be wrong before anything is written, then write the run's settings."""
    spec = parse_split(request.split)
    cache = open_cache(choose_cache_dir(request.cache, size_px=request.size_px))
    if len(cache.manifest.classes) != _NUM_CLASSES:
        raise UsageError(
            f"{cache.directory} has {len(cache.manifest.classes)} classes ({', '.join(cache.manifest.classes)}): "
            "training and judging know two"
        )
    data = SplitCache(cache, spec, assign_split(spec, cache.table, request.seed))
    for part in ("train", "valid"):
        data.numbers(part)
    optimizer = OptimizerSettings(
        lr=request.lr,
        momentum=request.momentum,
        weight_decay=request.weight_decay,
        schedule=request.schedule,
        warmup_epochs=request.warmup_epochs,
    )
    config = RunConfig(
        model_name=request.model_name,
        cache_dir=str(cache.directory.resolve()),
        data_fingerprint=cache.manifest.fingerprint,
        data_digest=data_digest(cache),
        split=str(spec),
        split_seed=request.seed,
        batch_size=request.batch_size,
        settings=TrainSettings(
            epochs=request.epochs, optimizer=optimizer, seed=request.seed, amp=request.amp, num_classes=_NUM_CLASSES
        ),
    )
    folder = RunFolder(request.out if request.out is not None else _free_folder(config, cache))
    if folder.root.exists() and (not folder.root.is_dir() or any(folder.root.iterdir())):
        raise UsageError(f"{folder.root} is not empty: go on with it by --resume, or name another --out")
    folder.root.mkdir(parents=True, exist_ok=True)
    save_split(folder, cache, data.codes)
    save_config(folder, config)
    return folder, config, data


def _free_folder(config: RunConfig, cache: Cache) -> Path:
    """``runs/resnet18-128px-subject-seed0``, numbered when that is taken."""
    name = f"{config.model_name}-{cache.size_px}px-{config.split}-seed{config.settings.seed}"
    base = Path("runs") / name.replace(":", "").replace("/", "of")
    numbered = (base.with_name(f"{base.name}-{number}") for number in range(2, 10_000))
    return next(path for path in (base, *numbered) if not path.exists())


def _take_up(request: TrainRequest) -> tuple[RunFolder, RunConfig, SplitCache]:
    """Read a run's settings; only its length and its device may change."""
    if request.out is None:
        raise UsageError("--resume needs --out: the folder of the run to go on with")
    changed = sorted(request.given - _KEPT_ON_RESUME)
    if changed:
        names = ", ".join(map(option_name, changed))
        raise UsageError(f"--resume takes the run's own settings: leave out {names}")
    folder = RunFolder(request.out)
    config = load_config(folder)
    cache = open_run_cache(config, request.cache if "cache" in request.given else None)
    if data_digest(cache) != config.data_digest:
        raise RunError(
            f"{cache.directory} holds other images than when the run began: a resumed run would not be the same; "
            "start a new one"
        )
    data = SplitCache(cache, parse_split(config.split), load_split(folder, cache))
    if "epochs" in request.given and request.epochs != config.settings.epochs:
        config = _with_epochs(folder, config, request.epochs)
    return folder, config, data


def _with_epochs(folder: RunFolder, config: RunConfig, epochs: int) -> RunConfig:
    """Give a run another length, not below the epochs that it has behind it."""
    num_done = load_checkpoint(folder.checkpoint("last")).state.epochs_done if _is_begun(folder) else 0
    if epochs < num_done:
        raise UsageError(f"--epochs {epochs}: {folder.root} has {num_done} epochs behind it already")
    print_note(f"note: the run now ends after {epochs} epochs instead of {config.settings.epochs}")
    config = replace(config, settings=replace(config.settings, epochs=epochs))
    save_config(folder, config)
    return config


def _is_begun(folder: RunFolder) -> bool:
    return folder.checkpoint("last").exists()


def _load_start(folder: RunFolder, model: nn.Module) -> TrainState | None:
    """Weights and state after the last finished epoch; None when none was finished."""
    if not _is_begun(folder):
        return None
    checkpoint = load_checkpoint(folder.checkpoint("last"))
    load_weights(model, checkpoint)
    return checkpoint.state


def _train_normalization(cache: Cache, numbers: np.ndarray[Any, np.dtype[np.int64]]) -> Normalization:
    """Exact mean and std of the training images, checked against some of them."""
    table = cache.table
    statistics = channel_statistics(
        table.channel_sums[numbers], table.channel_square_sums[numbers], cache.pixels_per_image
    )
    if statistics is None:
        raise UsageError("there is no image to train on")
    normalization = Normalization(statistics.mean, statistics.std)
    step = max(len(numbers) // _GUARD_IMAGES, 1)
    check_normalization(normalization, cache.reader.gather(numbers[::step]))
    return normalization


def _square_views(seed: int) -> Callable[[Tensor, int, Tensor], Tensor]:
    def augment(images_BHWC: Tensor, epoch: int, samples_B: Tensor) -> Tensor:
        return random_square_views(images_BHWC, samples_B, seed, epoch)

    return augment


def _announce(folder: RunFolder, config: RunConfig, data: SplitCache, model: nn.Module, device: torch.device) -> None:
    summary = data.summary("valid")
    parts = ", ".join(f"{name} {sum(counts.images_per_class):,}" for name, counts in summary.parts.items())
    print_note(
        f"{config.model_name} ({count_parameters(model) / 1e6:.2f} M parameters) on {device}, "
        f"{data.cache.directory} ({data.cache.size_px} px)\n"
        f"split {config.split}: {summary.stamp}; images: {parts}\nrun: {folder.root}"
    )


class _Recorder(Observer):
    """Draws the progress bar and writes checkpoints, metrics and curves after every epoch."""

    def __init__(
        self, folder: RunFolder, info: CheckpointInfo, model: nn.Module, data: SplitCache, epochs: int
    ) -> None:
        self._folder, self._info, self._model, self._epochs = folder, info, model, epochs
        self._stamp = check_leaks(data.codes, data.cache.table).stamp
        self._bar_context: AbstractContextManager[tqdm[Any]] | None = None
        self._bar: tqdm[Any] | None = None

    def on_epoch_start(self, epoch: int, num_steps: int) -> None:
        self.close()
        self._bar_context = progress_bar(num_steps, f"epoch {epoch}/{self._epochs}", unit="step")
        self._bar = self._bar_context.__enter__()

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self._bar.update()

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        self.close()
        if is_best:
            save_checkpoint(self._folder.checkpoint("best"), self._model, self._info, state, resumable=False)
        save_checkpoint(self._folder.checkpoint("last"), self._model, self._info, state)
        _write_history(self._folder, state.history, self._info.model_name, self._stamp)
        print_note(_epoch_line(record, self._epochs, is_best))

    def close(self) -> None:
        """End the progress bar."""
        if self._bar_context is not None:
            self._bar_context.__exit__(None, None, None)
            self._bar_context = self._bar = None


def _write_history(folder: RunFolder, history: TrainHistory, model_name: str, stamp: str) -> None:
    write_history(folder.history, history, stamp)
    save_figure(draw_history(history, title=model_name, stamp=stamp), folder.history_figure)


def _epoch_line(record: EpochRecord, epochs: int, is_best: bool) -> str:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    return (
        f"epoch {record.epoch:>3}/{epochs}  train loss {record.train_loss:.3f} acc {record.train_accuracy:.3f}  "
        f"valid loss {number(record.valid_loss)} acc {number(record.valid_accuracy)} "
        f"bal {number(record.valid_balanced_accuracy)} wF1 {number(record.valid_weighted_f1)}  "
        f"{record.seconds:.1f} s, {record.images_per_s:.0f} images/s{'  best' if is_best else ''}"
    )


def _judge(folder: RunFolder, data: SplitCache, device: torch.device, batch_size: int) -> dict[str, Results]:
    """Judge the best epoch on the validation and, where there is a labelled one, the test part."""
    checkpoint = load_checkpoint(folder.checkpoint("best"))
    results = {}
    for part in ("valid", "test"):
        summary = data.summary(part)
        if sum(summary.parts[part].images_per_class) > 0:
            results[part] = judge_part(checkpoint, data, part, folder.part(part), device=device, batch_size=batch_size)
    return results


def _report(folder: RunFolder, results: dict[str, Results], as_json: bool) -> None:
    if as_json:
        print_json({"run": str(folder.root), "results": {part: result.to_dict() for part, result in results.items()}})
        return
    for part, result in results.items():
        click.echo(result_lines(part, result))
    click.echo(f"Look at {folder.history_figure} and {folder.part('valid') / 'summary.md'}")


def result_lines(part: str, results: Results) -> str:
    """One judged part in a few lines for people."""
    metrics = results.metrics

    def number(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.3f}"

    recall = ", ".join(
        f"{name} {number(value)}" for name, value in zip(results.classes, metrics.recall_per_class, strict=True)
    )
    lines = [
        f"{part} ({metrics.num_samples:,} images, epoch {results.epoch}, {results.split.stamp}):",
        f"  balanced accuracy {number(metrics.balanced_accuracy)}, recall {recall}",
        f"  weighted F1 {metrics.weighted_f1:.3f} (always the larger class: {results.baseline.weighted_f1:.3f}), "
        f"macro F1 {number(metrics.macro_f1)}, AUROC {number(metrics.auroc)}",
        *(f"  caution: {sentence}" for sentence in results.to_dict()["cautions"]),
    ]
    return "\n".join(lines)
