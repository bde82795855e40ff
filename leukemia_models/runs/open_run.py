"""Runs opened again: the cache that a run was trained from, its split, its network, and the views it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, Protocol

import torch

from leukemia_data.caches.cache import Cache
from leukemia_data.caches.manifest import MANIFEST_NAME
from leukemia_data.caches.opening import DEFAULT_COPIES, LocalCopiesChoice, fingerprints, open_chosen_cache
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import RunError, UsageError
from leukemia_data.stores.url import Location, parse_location
from leukemia_models.devices.precision import choose_device
from leukemia_models.evaluation.settings import LOGITS, Tta, parse_tta, require_batchnorm_mode
from leukemia_models.runs.evaluate_part import Predictor, evaluation_calibration, evaluation_tta
from leukemia_models.runs.run_config import RunConfig, load_config
from leukemia_models.runs.run_folder import FINAL, RunFolder, last_run
from leukemia_models.runs.run_split import KnownSamples, SplitCache, load_known_samples
from leukemia_models.runs.start_weights import split_of_run
from leukemia_models.training.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint

DEFAULT_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A trained run: what it is used with, and where its cache is now. Files are read when they are needed.

    Attributes
    ----------
    path
        As the user names it: the folder of a run, or of a plan, whose last stage is meant.
    folder
        The run's own folder.
    cache_location
        Where its cache was moved to; None for where it was.
    copies
        Where shards of a cache at a URL are copied to.
    device
        Where networks compute.
    batch_size
        Images at a time.
    console
        Gets notes and progress.
    """

    path: Path
    folder: RunFolder
    cache_location: Location | None
    copies: LocalCopiesChoice
    device: torch.device
    batch_size: int
    console: Console

    @cached_property
    def config(self) -> RunConfig:
        """What the run was told; a RunError if it cannot be read."""
        return load_config(self.folder)

    @contextmanager
    def data(self) -> Iterator[SplitCache]:
        """Open the run's cache with the split that the run wrote down when it began; closed after the block.

        Raises
        ------
        RunError
            If the cache is not there or another one, or a sample of the split is gone or changed.
        """
        with open_run_cache(self.config, self.cache_location, self.copies) as cache:
            yield split_of_run(self.folder, self.config, cache, self.console)

    def checkpoint(self, which: str = FINAL) -> Checkpoint:
        """Read a checkpoint; ``final`` is ``best`` where the run has no final one.

        Raises
        ------
        RunError
            If it is missing or damaged.
        """
        if which == FINAL and not self.folder.checkpoint(FINAL).is_file() and self.folder.checkpoint("best").is_file():
            self.console.note(
                f"{self.folder.root} has no final checkpoint (the run is not finished, or of an earlier version): best "
                "is used"
            )
            which = "best"
        return open_checkpoint(self.folder.checkpoint(which))

    def predictor(self, checkpoint: Checkpoint, tta: Tta | None = None) -> Predictor:
        """Put the network of a checkpoint on the device; `tta` is by default what the checkpoint is evaluated with."""
        return Predictor.load(checkpoint, device=self.device, batch_size=self.batch_size, tta=tta, console=self.console)

    def known_samples(self, checkpoint: Checkpoint, *, need_source: bool = False) -> KnownSamples:
        """Return the run's samples to look other images up in; its cache is asked where it is needed and there.

        Raises
        ------
        RunError, CacheError, StorageError
            If the user says where the cache is, and it cannot be opened.
        """
        if self.cache_location is not None:
            self._open_cache().close()
        classes = checkpoint.info.classes
        return load_known_samples(self.folder, classes, self._open_cache, need_source=need_source)

    def _open_cache(self) -> Cache:
        return open_run_cache(self.config, self.cache_location, self.copies)


def open_run(
    path: Path,
    *,
    cache: Location | None = None,
    copies: LocalCopiesChoice = DEFAULT_COPIES,
    device: str = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    console: Console = NULL_CONSOLE,
) -> OpenRun:
    """Open a trained run, or the last stage of a plan that has begun.

    Parameters
    ----------
    path
        Its folder.
    cache
        Where its cache is now, if it was moved: a folder or an address.
    copies
        Where shards of a cache at a URL are copied to.
    device
        As for :func:`~leukemia_models.devices.precision.choose_device`.
    batch_size
        Images at a time.
    console
        Gets notes and progress of all that is done with the run.

    Raises
    ------
    UsageError
        If there is nothing at `path`, or the device is unknown or not there.
    RunError
        If `path` holds no run.
    """
    return OpenRun(
        path=path,
        folder=last_run(path),
        cache_location=cache,
        copies=copies,
        device=choose_device(device),
        batch_size=batch_size,
        console=console,
    )


class HasData(Protocol):
    """A run, as far as its samples go."""

    @property
    def data(self) -> SplitCache:
        """Its cache with its split."""
        ...


def open_run_cache(config: RunConfig, given: Location | None, copies: LocalCopiesChoice) -> Cache:
    """Open the run's cache where it was, or where the user says it is now.

    Raises
    ------
    RunError
        If it is not there, or was preprocessed otherwise than the one the run was trained from.
    """
    if given is not None:
        location = _fitting_location(config, given)
    else:
        location = parse_location(config.cache_dir)
        if isinstance(location, Path) and not (location / MANIFEST_NAME).is_file():
            raise RunError(
                f"the run's cache is not at {location} any more: say with --cache where it is, or build it again"
            )
    cache = open_chosen_cache(location, copies)
    if cache.manifest.fingerprint != config.data_fingerprint:
        raise RunError(
            f"{cache.location} has fingerprint {cache.manifest.fingerprint[:12]}, the run was trained from "
            f"{config.data_fingerprint[:12]}: another recipe, size or OpenCV release"
        )
    return cache


def _fitting_location(config: RunConfig, given: Location) -> Location:
    """The only cache at or below `given` that was made as the run's was, else `given` itself."""
    found = fingerprints(given)
    fitting = [location for location, fingerprint in found.items() if fingerprint == config.data_fingerprint]
    return fitting[0] if len(fitting) == 1 else given


@contextmanager
def closing_caches(runs: Iterable[HasData]) -> Iterator[None]:
    """End, after the block, whatever still fetches shards of the runs' caches."""
    try:
        yield
    finally:
        for run in runs:
            run.data.cache.close()


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that a network is evaluated with.

    Raises
    ------
    RunError
        If it is missing or damaged.
    """
    checkpoint = load_checkpoint(path)
    try:
        _require_evaluation(checkpoint.info.judging or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{checkpoint.path} is damaged: how its network is evaluated cannot be read ({error!r}); use another "
            "checkpoint (`--checkpoint best`)"
        ) from error
    return checkpoint


def _require_evaluation(judging: Mapping[str, Any]) -> None:
    """Check what :func:`~leukemia_models.runs.finalize.prepare_predictor` decided, after its way through a file."""
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
    """Return the views that are asked for, else those that the checkpoint is evaluated with.

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
