"""Begin a run or take one up again: everything that can be wrong is found before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cli.ltrain.run_data import data_digest, open_run_cache, split_of_run
from cli.options import option_name
from cli.output import print_note
from leukemia_data.atomic import PARTIAL_SUFFIX, write_text
from leukemia_data.augmentation import Augmentation, load_augmentation
from leukemia_data.cache import Cache, choose_cache_dir, open_cache
from leukemia_data.errors import RunError, UsageError
from leukemia_data.free_memory import free_ram_bytes
from leukemia_data.moments import channel_statistics
from leukemia_data.residency import choose_residency, free_bytes, most_bytes
from leukemia_data.splits import assign_split, parse_split
from leukemia_models.checkpoint import load_checkpoint
from leukemia_models.judge import SplitCache
from leukemia_models.normalization import Normalization, check_normalization
from leukemia_models.optim import OptimizerSettings
from leukemia_models.ranks import Ranks
from leukemia_models.run_files import SAMPLINGS, RunConfig, RunFolder, load_config, save_config, save_split
from leukemia_models.run_state import TrainSettings

_GUARD_IMAGES = 256
_NORMALIZATION_NUMBERS = 6
_NUM_CLASSES = 2
_FREE_ON_RESUME = {
    "out",
    "resume",
    "device",
    "epochs",
    "as_json",
    "cache",
    "residency",
    "num_threads",
    "save_minutes",
}


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
    normalize: str
    augment: str
    sampling: str
    seed: int
    device: str
    amp: bool
    residency: str
    num_threads: int | None
    save_minutes: float
    out: Path | None
    resume: bool
    as_json: bool


@dataclass(frozen=True)
class Run:
    """A run that is ready to be trained: its folder, its settings, its samples."""

    folder: RunFolder
    config: RunConfig
    data: SplitCache


def begin_run(request: TrainRequest, device: torch.device, ranks: Ranks) -> Run:
    """Begin a run or take one up; with several ranks the first does so, and the others read what it wrote."""
    run: Run | None = None

    def lead() -> None:
        nonlocal run
        if ranks.is_first:
            prepare = take_up_run if request.resume else prepare_run
            run = prepare(request, device, ranks.world_size)

    ranks.together(lead)
    root = ranks.tell_all(str(run.folder.root) if run is not None else "")
    return ranks.together(lambda: run if run is not None else _open_run(RunFolder(Path(root))))


def _open_run(folder: RunFolder) -> Run:
    """Open a run that another process has checked."""
    config = load_config(folder)
    return Run(folder, config, split_of_run(folder, config, open_run_cache(config, None)))


def prepare_run(request: TrainRequest, device: torch.device, num_processes: int) -> Run:
    """Check everything that can be wrong before anything is written, then write the run's settings."""
    spec = parse_split(request.split)
    augmentation = load_augmentation(request.augment)
    for warning in augmentation.warnings():
        print_note(f"warning: {warning}")
    cache = open_cache(choose_cache_dir(request.cache, size_px=request.size_px))
    if len(cache.manifest.classes) != _NUM_CLASSES:
        raise UsageError(
            f"{cache.directory} has {len(cache.manifest.classes)} classes ({', '.join(cache.manifest.classes)}): "
            "training and judging know two"
        )
    data = SplitCache(cache, spec, assign_split(spec, cache.table, request.seed, cache.manifest.classes))
    _check_parts(data)
    _check_room(request, data, device, num_processes)
    normalization = _choose_normalization(request.normalize, cache, data.numbers("train"))
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
        normalization=normalization.to_dict(),
        settings=TrainSettings(
            epochs=request.epochs, optimizer=optimizer, seed=request.seed, amp=request.amp, num_classes=_NUM_CLASSES
        ),
        augmentation=augmentation.to_dict(),
        sampling=request.sampling,
    )
    folder = RunFolder(request.out if request.out is not None else _free_folder(config, cache))
    if folder.root.exists() and (not folder.root.is_dir() or any(folder.root.iterdir())):
        raise UsageError(f"{folder.root} is not empty: go on with it by --resume, or name another --out")
    folder.root.mkdir(parents=True, exist_ok=True)
    save_split(folder, cache, data.codes)
    write_text(folder.augmentation, augmentation.to_toml())
    save_config(folder, config)
    return Run(folder, config, data)


def _check_parts(data: SplitCache) -> None:
    """Refuse to train without validation images, or on images of one class."""
    data.numbers("valid")
    labels = set(data.cache.table.labels[data.numbers("train")].tolist())
    absent = [name for label, name in enumerate(data.cache.manifest.classes) if label not in labels]
    if absent:
        raise UsageError(f"split {data.spec}: the training part has no image of class {absent[0]!r}")


def _check_room(request: TrainRequest, data: SplitCache, device: torch.device, num_processes: int) -> None:
    """Refuse a --residency that cannot be had, before the run's folder is made or changed."""
    choose_residency(
        request.residency,
        len(data.numbers("train")) * data.cache.pixels_per_image * 3,
        device_free_bytes=free_bytes(device),
        device_most_bytes=most_bytes(device),
        ram_free_bytes=free_ram_bytes(),
        num_processes=num_processes,
    )


def _free_folder(config: RunConfig, cache: Cache) -> Path:
    """``runs/resnet18-128px-subject-seed0``, numbered when that is taken."""
    name = f"{config.model_name}-{cache.size_px}px-{config.split}-seed{config.settings.seed}"
    base = Path("runs") / name.replace(":", "").replace("/", "of")
    numbered = (base.with_name(f"{base.name}-{number}") for number in range(2, 10_000))
    return next(path for path in (base, *numbered) if not path.exists())


def take_up_run(request: TrainRequest, device: torch.device, num_processes: int) -> Run:
    """Read a run's settings; only its length may change, and what has no part in its numbers."""
    if request.out is None:
        raise UsageError("--resume needs --out: the folder of the run to go on with")
    changed = sorted(request.given - _FREE_ON_RESUME)
    if changed:
        names = ", ".join(map(option_name, changed))
        raise UsageError(f"--resume takes the run's own settings: leave out {names}")
    folder = RunFolder(request.out)
    config = load_config(folder)
    if config.augmentation is None:
        raise RunError(
            f"{folder.root} was begun by an earlier version, whose augmentation drew other numbers: it can be judged "
            "and used, but not gone on with; start a new run"
        )
    _check_streams(folder, config, config.augmentation)
    cache = open_run_cache(config, request.cache if "cache" in request.given else None)
    if data_digest(cache) != config.data_digest:
        raise RunError(
            f"{cache.directory} holds other images than when the run began: a resumed run would not be the same; "
            "start a new one"
        )
    data = split_of_run(folder, config, cache)
    _check_room(request, data, device, num_processes)
    if "epochs" in request.given and request.epochs != config.settings.epochs:
        config = _with_epochs(folder, config, request.epochs)
    _clear_leftovers(folder)
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


def _with_epochs(folder: RunFolder, config: RunConfig, epochs: int) -> RunConfig:
    """Give a run another length, not below the epochs that it has behind it."""
    num_done = load_checkpoint(folder.checkpoint("last")).state.epochs_done if is_begun(folder) else 0
    if epochs < num_done:
        raise UsageError(f"--epochs {epochs}: {folder.root} has {num_done} epochs behind it already")
    print_note(f"note: the run now ends after {epochs} epochs instead of {config.settings.epochs}")
    config = replace(config, settings=replace(config.settings, epochs=epochs))
    save_config(folder, config)
    return config


def _clear_leftovers(folder: RunFolder) -> None:
    """Remove what a killed process was writing: files that never got their name, each as large as a checkpoint."""
    for leftover in folder.root.glob(f"*{PARTIAL_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def is_begun(folder: RunFolder) -> bool:
    """Whether a run has a checkpoint to go on from."""
    return folder.checkpoint("last").exists()


def _choose_normalization(text: str, cache: Cache, numbers: NDArray[np.int64]) -> Normalization:
    """The exact mean and std of the training images, or given ones; checked against some training images."""
    normalization = _train_normalization(cache, numbers) if text == "train" else _parse_normalization(text)
    step = max(len(numbers) // _GUARD_IMAGES, 1)
    check_normalization(normalization, cache.reader.gather(numbers[::step]))
    return normalization


def _train_normalization(cache: Cache, numbers: NDArray[np.int64]) -> Normalization:
    table = cache.table
    statistics = channel_statistics(
        table.channel_sums[numbers], table.channel_square_sums[numbers], cache.pixels_per_image
    )
    if statistics is None:
        raise UsageError("there is no image to train on")
    return Normalization(statistics.mean, statistics.std)


def _parse_normalization(text: str) -> Normalization:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != _NORMALIZATION_NUMBERS:
        raise UsageError(f"--normalize {text!r}: give train, or mean and std as six numbers: R,G,B,R,G,B")
    return Normalization.of(numbers[:3], numbers[3:])
