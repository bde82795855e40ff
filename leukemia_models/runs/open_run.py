"""Open trained runs: cache, split, checkpoints, network and its views of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any

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
    """A trained run and what it is used with. Files are read when needed.

    Attributes
    ----------
    path
        The folder as the user named it: of a run, or of a plan, whose last stage is used.
    folder
        The run's own folder.
    cache_location
        New place of its cache; None if it was not moved.
    copies
        Where shards of a cache at a URL are copied to.
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
        """Settings of the run; raises a RunError if ``run.json`` cannot be read."""
        return load_config(self.folder)

    @contextmanager
    def data(self) -> Iterator[SplitCache]:
        """Open the run's cache with its recorded split for the block.

        Raises
        ------
        RunError
            If the cache is missing or another one, or a sample of the split is missing or changed.
        """
        with open_run_cache(self.config, self.cache_location, self.copies) as cache:
            yield split_of_run(self.folder, self.config, cache, self.console)

    def checkpoint(self, which: str = FINAL) -> Checkpoint:
        """Read the checkpoint ``final``, ``best`` or ``last``; a missing final one is replaced by the best.

        Raises
        ------
        RunError
            If it is missing or damaged.
        """
        final, best = self.folder.checkpoint(FINAL), self.folder.checkpoint("best")
        if which == FINAL and not final.is_file() and best.is_file():
            self.console.note(
                f"{self.folder.root} has no final checkpoint (the run is not finished, or of an earlier version): best "
                "is used"
            )
            which = "best"
        return open_checkpoint(self.folder.checkpoint(which))

    def predictor(self, checkpoint: Checkpoint, tta: Tta | None = None) -> Predictor:
        """Load the network of a checkpoint; `tta` defaults to that of the checkpoint's evaluation."""
        return Predictor.load(checkpoint, device=self.device, batch_size=self.batch_size, tta=tta, console=self.console)

    def known_samples(self, checkpoint: Checkpoint, *, need_source: bool = False) -> KnownSamples:
        """Return the run's samples, as :func:`~leukemia_models.runs.run_split.load_known_samples`.

        Raises
        ------
        RunError, CacheError, StorageError
            If the user names a cache that cannot be opened.
        """

        def open_cache() -> Cache:
            return open_run_cache(self.config, self.cache_location, self.copies)

        if self.cache_location is not None:
            open_cache().close()
        return load_known_samples(self.folder, checkpoint.info.classes, open_cache, need_source=need_source)


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
    cache
        New place of its cache, if it was moved: a folder or an address.
    device
        As for :func:`~leukemia_models.devices.precision.choose_device`.

    Raises
    ------
    UsageError
        If `path` does not exist, or the device is unknown or missing.
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


def open_run_cache(config: RunConfig, given: Location | None, copies: LocalCopiesChoice) -> Cache:
    """Open the run's cache at its recorded place, or at or below `given`.

    Raises
    ------
    RunError
        If it is missing, or its fingerprint is not that of the run.
    """
    location = parse_location(config.cache_dir) if given is None else given
    if given is not None:
        found = fingerprints(given)
        fitting = [place for place, fingerprint in found.items() if fingerprint == config.data_fingerprint]
        location = fitting[0] if len(fitting) == 1 else given
    elif isinstance(location, Path) and not (location / MANIFEST_NAME).is_file():
        raise RunError(f"the run's cache is not at {location} any more: name it with --cache, or build it again")
    cache = open_chosen_cache(location, copies)
    if cache.manifest.fingerprint != config.data_fingerprint:
        raise RunError(
            f"{cache.location} has fingerprint {cache.manifest.fingerprint[:12]}, the run was trained from "
            f"{config.data_fingerprint[:12]}: another recipe, size or OpenCV release"
        )
    return cache


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, and check its settings of the evaluation; raises a RunError if it is missing or damaged."""
    checkpoint = load_checkpoint(path)
    try:
        _require_evaluation(checkpoint.info.judging or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{checkpoint.path} is damaged: its settings of the evaluation cannot be read ({error!r}); use another "
            "checkpoint (`--checkpoint best`)"
        ) from error
    return checkpoint


def _require_evaluation(judging: Mapping[str, Any]) -> None:
    """Raise an error if `judging` is not as :func:`~leukemia_models.runs.finalize.prepare_predictor` writes it."""
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
    """Return the given views and average, by default those of the checkpoint's evaluation.

    Raises
    ------
    UsageError
        If `text` names no views, or `average` is given with one view.
    """
    if text is not None:
        tta = parse_tta(text, average or LOGITS)
    else:
        tta = evaluation_tta(info.judging)
        tta = replace(tta, average=average or tta.average)
    if average is not None and tta.num_views == 1:
        raise UsageError(f"--tta-average {average}: there is only one view of each image; add --tta d4")
    return tta
