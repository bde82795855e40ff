"""Runs opened again: the cache that a run was trained from, its split, its network, and the views it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any, Protocol

from leukemia_data.caches.cache import Cache
from leukemia_data.caches.manifest import MANIFEST_NAME
from leukemia_data.caches.opening import LocalCopiesChoice, fingerprints, open_chosen_cache
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import RunError, UsageError
from leukemia_data.stores.url import Location, parse_location
from leukemia_models.evaluation.predict import LOGITS, Tta, parse_tta
from leukemia_models.runs import start_weights
from leukemia_models.runs.evaluate_part import evaluation_calibration, evaluation_tta
from leukemia_models.runs.run_config import RunConfig, load_config
from leukemia_models.runs.run_data import KnownSamples, load_known_samples
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import SplitCache
from leukemia_models.training.batchnorm_report import require_batchnorm_mode
from leukemia_models.training.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint


class HasData(Protocol):
    """A run, as far as its samples go."""

    @property
    def data(self) -> SplitCache:
        """Its cache with its split."""
        ...


def open_run_cache(config: RunConfig, given: Location | None, stage: LocalCopiesChoice) -> Cache:
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
    cache = open_chosen_cache(location, stage)
    if cache.manifest.fingerprint != config.data_fingerprint:
        raise RunError(
            f"{cache.location} has fingerprint {cache.manifest.fingerprint[:12]}, the run was trained from "
            f"{config.data_fingerprint[:12]}: another recipe, size or OpenCV release"
        )
    return cache


def split_of_run(folder: RunFolder, config: RunConfig, cache: Cache, console: Console = NULL_CONSOLE) -> SplitCache:
    """The run's cache with the split that the run wrote down when it began; says so if images were added since.

    Raises
    ------
    RunError
        If a sample of the split is gone or changed.
    """
    data = start_weights.split_of_run(folder, config, cache)
    if note := start_weights.added_note(data):
        console.note(f"note: {note}")
    return data


def known_samples_of_run(
    folder: RunFolder,
    checkpoint: Checkpoint,
    given: Location | None,
    stage: LocalCopiesChoice,
    *,
    need_source: bool = False,
) -> KnownSamples:
    """The run's samples to look other images up in; its cache is asked where it is needed and there.

    Raises
    ------
    RunError, CacheError, StorageError
        If the user says where the cache is, and it cannot be opened.
    """
    config = load_config(folder)
    if given is not None:
        open_run_cache(config, given, stage).close()
    return load_known_samples(
        folder, checkpoint.info.classes, lambda: open_run_cache(config, given, stage), need_source=need_source
    )


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


def open_checkpoint(folder: RunFolder, which: str, console: Console = NULL_CONSOLE) -> Checkpoint:
    """Read a run's checkpoint; ``final`` is ``best`` where the run has no final one.

    Raises
    ------
    RunError
        If it is missing or damaged.
    """
    if which == "final" and not folder.checkpoint("final").is_file() and folder.checkpoint("best").is_file():
        console.note(
            f"{folder.root} has no final checkpoint (the run is not finished, or of an earlier version): best is used"
        )
        which = "best"
    checkpoint = load_checkpoint(folder.checkpoint(which))
    try:
        _require_evaluation(checkpoint.info.judging or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{checkpoint.path} is damaged: how its network is judged cannot be read ({error!r}); use --checkpoint best"
        ) from error
    return checkpoint


def _require_evaluation(judging: Mapping[str, Any]) -> None:
    """Check what :func:`~leukemia_models.runs.finalize.prepare_network` wrote down, after its way through a file."""
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
    """Return the views that were asked for, else those that the run was judged by.

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
