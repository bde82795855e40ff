"""Predict samples with a run's network, and evaluate it on one part of the run's split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from leukemia_data.console import NULL_CONSOLE, Console, tracked
from leukemia_data.errors import RunError, UsageError, listed
from leukemia_data.lazy_imports import pd
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.scanning.frame_notes import FRAMES_DETAIL, finding_caution
from leukemia_data.splitting.leaks import is_disjoint_stamp
from leukemia_data.splitting.splits import split_indices
from leukemia_data.splitting.subject_groups import linked_groups
from leukemia_data.streams.batch import micro_batch_size
from leukemia_data.streams.loader import BatchStream
from leukemia_data.streams.residency import MAPPED
from leukemia_models.devices.normalization import Batch
from leukemia_models.devices.precision import FP32, convolutions, current, is_out_of_memory
from leukemia_models.evaluation.calibration import Calibration
from leukemia_models.evaluation.predict import predict_probabilities
from leukemia_models.evaluation.predictions import Predictions, predictions_table
from leukemia_models.evaluation.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.evaluation.settings import NO_TTA, Tta
from leukemia_models.reports.results import Results, read_results
from leukemia_models.reports.summary_page import EvaluatedNetwork, results_of_table, write_evaluated
from leukemia_models.runs.run_folder import RESULT_NAMES, RESULTS_NAME, RunFolder
from leukemia_models.runs.run_split import (
    SPLIT_DIGEST,
    TEST,
    VALID,
    SplitCache,
    samples_digest,
    split_digest,
    split_names,
)
from leukemia_models.runs.start_weights import require_unseen
from leukemia_models.training.batchnorm_statistics import BatchNormStatistics, reestimate_batchnorm
from leukemia_models.training.checkpoint import POSITIVE_DETAIL, Checkpoint, CheckpointInfo
from leukemia_models.training.checkpoint_file import tensors_digest
from leukemia_models.training.checkpoint_match import differences
from leukemia_models.training.weights import require_finite


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictor:
    """A network on its device.

    Attributes
    ----------
    checkpoint
        Its description, with weights on the CPU.
    model
        The same weights on `device`, in eval mode only during a prediction.
    tta
        Views of each image.
    console
        Gets progress.
    """

    checkpoint: Checkpoint
    model: nn.Module
    device: torch.device
    batch_size: int
    tta: Tta
    console: Console

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        *,
        device: torch.device,
        batch_size: int,
        tta: Tta | None = None,
        console: Console = NULL_CONSOLE,
    ) -> Predictor:
        """Build the network of a checkpoint; `tta` defaults to that of the checkpoint's evaluation.

        Raises
        ------
        RunError
            If the weights do not fit the network that the checkpoint names.
        """
        model = checkpoint.build_model().to(memory_format=torch.channels_last).to(device)
        views = evaluation_tta(checkpoint.info.judging) if tta is None else tta
        return cls(checkpoint=checkpoint, model=model, device=device, batch_size=batch_size, tta=views, console=console)

    def predict(self, batches: Iterable[Batch], num_batches: int, purpose: str) -> Predictions:
        """Predict the images of batches, in their order.

        Raises
        ------
        RunError
            If there is no batch, or the network's output is not finite.
        """
        shown = tracked(batches, self.console, num_batches, purpose, "batch")
        normalization = self.checkpoint.info.normalization
        with self._in_32_bits():
            return predict_probabilities(self.model, shown, normalization, self.device, precision=FP32, tta=self.tta)

    @contextmanager
    def _in_32_bits(self) -> Iterator[None]:
        with current(self.device), convolutions(self.device, tf32=False, cudnn_benchmark=False):
            yield

    def predict_samples(self, data: SplitCache, indices_N: NDArray[np.int64], purpose: str) -> Predictions:
        """Predict samples of a cache, in the order of `indices_N`.

        Raises
        ------
        RunError
            If memory runs out, or the network's output is not finite.
        """
        try:
            with self._stream(data, indices_N, self.batch_size) as stream:
                return self.predict(stream.epoch(0), len(stream), purpose)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunError(
                f"memory ran out on {self.device} with {self.batch_size} images at a time: end what else uses it, or "
                "evaluate and predict with fewer at a time (`--batch-size`)"
            ) from error

    def predict_part(self, data: SplitCache, part: str) -> Predictions:
        """Predict every sample of a part; raises as :meth:`predict_samples`, and a UsageError if the part is empty."""
        return self.predict_samples(data, data.indices(part), f"evaluate {part}")

    def reestimate_batchnorm(self, data: SplitCache, indices_N: NDArray[np.int64]) -> BatchNormStatistics:
        """Measure BatchNorm statistics on samples without augmentation."""
        info = self.checkpoint.info
        # As large as in training: the input of a layer depends on the batch statistics of those before it.
        whole = int(info.details.get("batch_size", self.batch_size))
        batch_size = min(micro_batch_size(whole, info.settings.accumulate), len(indices_N))
        with self._stream(data, indices_N, batch_size) as stream, self._in_32_bits():
            batches = tracked(stream.epoch(0), self.console, len(stream), "re-estimate BatchNorm", "batch")
            return reestimate_batchnorm(self.model, batches, info.normalization, self.device)

    def _stream(self, data: SplitCache, indices_N: NDArray[np.int64], batch_size: int) -> BatchStream:
        return BatchStream(data.cache, indices_N, batch_size=batch_size, device=self.device, residency=MAPPED)


def evaluation_tta(judging: Mapping[str, Any] | None) -> Tta:
    """Return the views of an image in a checkpoint's ``judging``."""
    return Tta.from_dict(judging["tta"]) if judging and "tta" in judging else NO_TTA


def evaluation_calibration(judging: Mapping[str, Any] | None) -> Calibration | None:
    """Return temperature and threshold in a checkpoint's ``judging``; None if none were fitted."""
    values = judging.get("calibration") if judging else None
    return Calibration.from_dict(values) if values else None


def require_same_data(checkpoint: Checkpoint, data: SplitCache) -> None:
    """Require that a network was trained with this cache and split.

    Raises
    ------
    RunError
        With all differences, or if the weights were trained on validation or test images.
    """
    manifest, details = data.cache.manifest, checkpoint.info.details
    if SPLIT_DIGEST in details:
        details = {**details, SPLIT_DIGEST: split_digest(data.cache.table, data.codes)}
    expected = replace(
        checkpoint.info,
        details=details,
        classes=manifest.classes,
        size_px=manifest.size_px,
        recipe=manifest.recipe.to_dict(),
        data_fingerprint=manifest.fingerprint,
        split_kind=str(data.spec),
    )
    found = differences(checkpoint.info, expected)
    if found:
        raise RunError(
            f"{checkpoint.path} does not belong to {data.cache.location} and the run's split: {'; '.join(found)}. "
            "Use the run's own checkpoint, with the cache it was trained from"
        )
    require_unseen(checkpoint, data)


def part_predictions(
    predictions: Predictions, data: SplitCache, part: str, positive: str | None = None
) -> pd.DataFrame:
    """Return a table of predictions, with the part's stamp as last column; `positive` defaults to the second class."""
    table, splits, classes = data.cache.table, split_names(data.codes), data.cache.manifest.classes
    rows = predictions_table(predictions, table.id_texts, table.subject_texts, splits, classes, positive)
    return rows.assign(stamp=data.stamp_of(part))


def evaluate_part(
    predictor: Predictor,
    data: SplitCache,
    part: str,
    out_dir: Path,
    *,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    replaces_others: bool = True,
    for_excel: bool = False,
) -> Results:
    """Evaluate a network on a part, and write results, page, tables and figures into `out_dir`.

    Samples without a label are predicted, but not evaluated.

    Parameters
    ----------
    replaces_others
        Replace results of other weights, samples, classes or stamps.

    Raises
    ------
    UsageError
        If no sample of the part has a label.
    RunError
        If the checkpoint was made with another cache or split, or other results would be replaced.
    """
    checkpoint = predictor.checkpoint
    require_same_data(checkpoint, data)
    if not replaces_others:
        require_replaceable(out_dir, checkpoint, data, part)
    predictions = predictor.predict_part(data, part)
    return evaluate_predictions(predictions, checkpoint, data, part, out_dir, bootstrap=bootstrap, for_excel=for_excel)


def evaluate_predictions(
    predictions: Predictions,
    checkpoint: Checkpoint,
    data: SplitCache,
    part: str,
    out_dir: Path,
    *,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    for_excel: bool = False,
) -> Results:
    """Evaluate the predictions of a part, and write results, page, tables and figures into `out_dir`.

    Raises
    ------
    UsageError
        If no sample of the part has a label.
    """
    if (predictions.labels_N == UNKNOWN_LABEL).all():
        raise UsageError(
            f"no image of the part {part!r} has a label to evaluate by: predict them instead (`ltrain predict`)"
        )
    table = part_predictions(predictions, data, part, checkpoint.info.positive)
    network = evaluated_network(checkpoint, part)
    understood = data.cache.manifest.understood
    finding = understood.frame_finding if understood is not None else None
    frames_warning = (finding_caution(finding),) if finding is not None and finding.tells_class else ()
    network = replace(
        network,
        notes=(*network.notes, *linked_subjects_note(data, part)),
        warnings=(*network.warnings, *frames_warning),
        identity=evaluated_identity(checkpoint, data, part),
    )
    results = results_of_table(table, data.summary(part, network.classes), network, bootstrap=bootstrap)
    # Only the folder of a run has its history.
    figures = ("../history.png",) if RunFolder(out_dir.parent).is_run else ()
    write_evaluated(out_dir, results, table, figures, for_excel=for_excel)
    return results


def linked_subjects_note(data: SplitCache, part: str) -> tuple[str, ...]:
    """Return, in one sentence or none, which evaluated subjects may be the same person."""
    groups, texts = linked_groups(data.cache.table), data.cache.table.subject_texts
    names: dict[int, set[str]] = {}
    for index in data.indices(part).tolist():
        if texts[index]:
            names.setdefault(int(groups[index]), set()).add(texts[index])
    linked = [" = ".join(sorted(each, key=lambda name: (len(name), name))) for each in names.values() if len(each) > 1]
    if not linked:
        return ()
    return (
        f"Evaluated subjects that share identical or near-identical images may be one person ({listed(linked)}). They "
        "count as several here, which makes intervals a little too narrow.",
    )


# Checkpoint details that reports show elsewhere, or not at all.
_NO_SETTINGS = (FRAMES_DETAIL, SPLIT_DIGEST, POSITIVE_DETAIL)
SEEN_WARNING = (
    "The network was trained on evaluated images: these numbers say how well it remembers, not how well it classifies."
)
CHOSEN_BY_NOTE = (
    "The epoch and the settings of the evaluation were chosen by these images: their numbers are a little too good. "
    "Quote numbers of images by which nothing was chosen."
)
MONITORED_NOTE = (
    "Training was monitored on these images. Whatever was chosen by them (when to stop, the learning rate, BatchNorm "
    "statistics, the best epoch of an earlier stage) makes their numbers a little too good."
)


def evaluated_network(checkpoint: Checkpoint, part: str) -> EvaluatedNetwork:
    """Return the description of an evaluated network for reports; an outside set counts as ``test``."""
    info, history = checkpoint.info, checkpoint.state.history
    judging = {**(info.judging or {"checkpoint": checkpoint.path.stem}), "precision": FP32}
    best = history.best if judging["checkpoint"] == "best" else None
    calibration = evaluation_calibration(info.judging)
    batchnorm = dict(judging.get("batchnorm", {}))
    settings = info.settings
    notes: list[str | None] = [extension.text(settings.schedule.name) for extension in settings.extensions or ()]
    notes += [change.text() for change in settings.precision_changes or ()]
    notes.append(positive_note(info))
    if part == VALID and any(record.valid_loss is not None for record in history.records):
        notes.append(MONITORED_NOTE if best is None or best.valid_loss is None else CHOSEN_BY_NOTE)
    notes.append(batchnorm.pop("text", None))
    if part == TEST and calibration is not None and not calibration.is_usable:
        notes.append(f"There are no calibrated numbers. {calibration.note}")
    return EvaluatedNetwork(
        model_name=info.model_name,
        classes=info.evaluated_classes,
        settings={
            "size_px": info.size_px,
            "recipe": info.recipe["name"],
            **{name: value for name, value in info.details.items() if name not in _NO_SETTINGS},
            **settings.to_dict(),
        },
        epoch=best.epoch if best is not None else checkpoint.state.epochs_done,
        judging={**judging, **({"batchnorm": batchnorm} if batchnorm else {})},
        calibration=calibration if part == TEST and calibration and calibration.is_usable else None,
        notes=tuple(filter(None, notes)),
        warnings=(SEEN_WARNING,) if part not in (VALID, TEST) else (),
    )


def positive_note(info: CheckpointInfo) -> str | None:
    """Return which class is the positive one if the run is of a version that recorded none; else None."""
    if info.has_positive:
        return None
    return (
        f"This run is of a version that recorded no positive class: its second class, {info.positive}, is the positive "
        "one."
    )


WEIGHTS, SAMPLES = "weights", "samples"
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers whose last digits, if re-estimated, depend on batch size and device."""


def evaluated_identity(checkpoint: Checkpoint, data: SplitCache, part: str) -> dict[str, str]:
    """Return the digests of a checkpoint's parameters, and of a part's ids, subjects, labels and pixels."""
    parameters = {
        name: value.contiguous() for name, value in checkpoint.model_state.items() if not name.endswith(_STATISTICS)
    }
    table, indices = data.cache.table, split_indices(data.codes, part)
    order = indices[np.argsort(table.ids[indices], kind="stable")]
    return {WEIGHTS: tensors_digest(parameters), SAMPLES: samples_digest(table, order, table.labels[order])}


def require_replaceable(out_dir: Path, checkpoint: Checkpoint, data: SplitCache, part: str) -> None:
    """Refuse to replace results of another network, other samples or classes, or another stamp.

    Results of earlier versions have no digests of weights and samples; these are not compared.

    Raises
    ------
    RunError
        With all differences; or if the weights are not finite.
    """
    require_no_other_files(out_dir)
    path = out_dir / RESULTS_NAME
    # A link is replaced, not followed.
    if not path.is_file() or path.is_symlink():
        return
    # Non-finite weights would be reported as other weights.
    require_finite(checkpoint.model_state, checkpoint.path)
    found = list(_differences(written_results(path), checkpoint, data, part))
    if found:
        raise RunError(
            f"{out_dir} holds other results, which are not replaced: {'; '.join(found)}. Choose another folder with "
            "--out, or remove that one first"
        )


def require_no_other_files(out_dir: Path) -> None:
    """Raise a RunError for a folder outside runs that holds files named like results, but no ``results.json``."""
    # In a run's folder they are of a stopped evaluation.
    if (out_dir / RESULTS_NAME).exists() or RunFolder(out_dir.parent).is_run:
        return
    for name in sorted(RESULT_NAMES):
        if (out_dir / name).exists():
            raise RunError(
                f"{out_dir / name} is not replaced, because there is no results.json beside it: remove it, or choose "
                "another folder with --out"
            )


def written_results(path: Path) -> dict[str, Any]:
    """Read the ``results.json`` that new results would replace; raises a RunError if it holds no results."""
    try:
        return read_results(path)
    except RunError:
        raise RunError(
            f"{path} holds no results of this project, or damaged ones, and is not replaced: remove it, or choose "
            "another folder with --out"
        ) from None


def _differences(written: Mapping[str, Any], checkpoint: Checkpoint, data: SplitCache, part: str) -> Iterator[str]:
    classes, stamp = tuple(written["classes"]), written["split"]["stamp"]
    if classes != checkpoint.info.evaluated_classes:
        yield f"classes {', '.join(classes)} instead of {', '.join(checkpoint.info.evaluated_classes)}"
    if written["split"]["kind"] != str(data.spec):
        yield f"split {written['split']['kind']} instead of {data.spec}"
    # Earlier versions wrote the split's own stamp on training images too.
    stamps = (data.stamp_of(part), data.leaks.stamp)
    if stamp not in stamps and not (is_disjoint_stamp(stamp) and data.leaks.is_disjoint):
        yield f"stamped {stamp} instead of {stamps[0]}"
    own, identity = evaluated_identity(checkpoint, data, part), written.get("identity") or {}
    if identity.get(WEIGHTS, own[WEIGHTS]) != own[WEIGHTS]:
        yield f"weights of epoch {written['epoch']} that {checkpoint.path.name} no longer holds"
    if identity.get(SAMPLES, own[SAMPLES]) != own[SAMPLES]:
        yield f"other images, subjects or labels than the part {part!r} has now"
