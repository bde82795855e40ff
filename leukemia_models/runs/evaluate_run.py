"""Evaluate a trained run on a part of its split, or on labelled images from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from leukemia_data.errors import RunError
from leukemia_data.files.text import printable
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_models.evaluation.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.evaluation.settings import RUNNING
from leukemia_models.reports.results import Results, result_text
from leukemia_models.runs.evaluate_outside import evaluate_outside, read_outside_set, require_no_part_folder
from leukemia_models.runs.evaluate_part import Predictor, evaluate_part, positive_note
from leukemia_models.runs.finalize import prepare_predictor
from leukemia_models.runs.open_run import OpenRun, chosen_tta
from leukemia_models.runs.run_folder import FINAL
from leukemia_models.runs.run_split import TEST, SplitCache
from leukemia_models.training.checkpoint import Checkpoint
from leukemia_models.training.training_plan import EvaluationSettings


@dataclass(frozen=True, kw_only=True, repr=False)
class RunEvaluation:
    """An evaluation of a run.

    Attributes
    ----------
    run
        The run's folder, as it was named.
    part
        The evaluated part, or the name of the outside set.
    out
        The folder with all files.
    note
        Note about the positive class, or None.
    num_known
        How many images of an outside set are images of each part of the run; None for a part.
    num_images, failures
        Size of an outside set, and ids of its unusable images, which are not evaluated.
    """

    run: Path
    part: str
    out: Path
    results: Results
    note: str | None
    num_known: Mapping[str, int] | None = None
    num_images: int = 0
    failures: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return printable(result_text(self.part, self.results))

    def require_complete(self) -> None:
        """Raise a RunError if an image could not be used."""
        if self.failures:
            raise RunError(
                f"{len(self.failures)} of {self.num_images} images could not be used and are not evaluated (listed "
                "above)"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        outside = {} if self.num_known is None else {"known": self.num_known, "failed": list(self.failures)}
        return {
            "run": str(self.run),
            "part": self.part,
            "out": str(self.out),
            **outside,
            "results": self.results.to_dict(),
        }


class EvaluationOptions(TypedDict, total=False):
    """Options of :func:`evaluate_run` and :func:`evaluate_images`."""

    checkpoint: str
    tta: str | None
    tta_average: str | None
    batchnorm: str | None
    out: Path | None
    bootstrap: BootstrapSettings
    for_excel: bool


@dataclass(frozen=True, kw_only=True)
class _Options:
    checkpoint: str = FINAL
    tta: str | None = None
    tta_average: str | None = None
    batchnorm: str | None = None
    out: Path | None = None
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP
    for_excel: bool = False

    @property
    def is_decided_anew(self) -> bool:
        return (self.tta, self.tta_average, self.batchnorm) != (None, None, None)

    def out_dir(self, run: OpenRun, evaluated: str) -> Path:
        """Return ``out``, else a folder in the run's named by what is evaluated and by the other options."""
        words = [self.checkpoint] if self.checkpoint != FINAL or self.is_decided_anew else []
        words += [word.replace(":", "") for word in (self.tta, self.tta_average, self.batchnorm) if word is not None]
        return self.out if self.out is not None else run.folder.part("-".join([evaluated, *words]))


def evaluate_run(run: OpenRun, part: str = TEST, **options: Unpack[EvaluationOptions]) -> RunEvaluation:
    """Evaluate a run on a part of its split.

    Parameters
    ----------
    part
        ``train``, ``valid``, ``test`` or ``all``.
    checkpoint
        ``final``, ``best`` or ``last``.
    tta, tta_average
        Views of each image, ``none``, ``d4`` or ``rotations:N``, and whether ``logits`` or ``probabilities`` are
        averaged; by default as the run was evaluated.
    batchnorm
        As in :class:`~leukemia_models.training.training_plan.EvaluationSettings`; by default as the run was evaluated.
        With this or other views, temperature and threshold are fitted again on the validation part.
    out
        Folder for the results; by default one in the run's folder, named by the part and the other options.
    bootstrap
        Settings of the intervals.
    for_excel
        Begin CSV files with a byte order mark.

    Raises
    ------
    UsageError
        If no image of the part has a label, an argument is unknown, or `out` belongs to other results.
    RunError
        If the run's checkpoint or cache is missing, damaged or of something else, or other results would be replaced.
    """
    chosen = _Options(**options)
    if chosen.out is not None:
        require_no_part_folder(chosen.out, part)
    out_dir = chosen.out_dir(run, part)
    with run.data() as data:
        predictor = _predictor(run, run.checkpoint(chosen.checkpoint), chosen, data)
        results = evaluate_part(
            predictor,
            data,
            part,
            out_dir,
            bootstrap=chosen.bootstrap,
            replaces_others=False,
            for_excel=chosen.for_excel,
        )
    note = positive_note(predictor.checkpoint.info)
    return RunEvaluation(run=run.path, part=part, out=out_dir, results=results, note=note)


def evaluate_images(
    run: OpenRun,
    images: Sequence[ImagePlace],
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    reading: ReadingOptions | None = None,
    **options: Unpack[EvaluationOptions],
) -> RunEvaluation:
    """Evaluate a run on labelled images from outside: folders and CSV tables.

    They are preprocessed by the recipe of the checkpoint. Unusable files are left out and named in the result.

    Parameters
    ----------
    images, root, allow_outside, reading
        As for :func:`leukemia_data.sources.source.list_source`; classes must be those of the run, by name.
    options
        As for :func:`evaluate_run`; `out` is by default named by the images.

    Raises
    ------
    UsageError, SourceError
        If the images cannot be listed, are of other classes, none has a label, or `out` belongs to a run's results.
    RunError
        As :func:`evaluate_run`, or if no image can be used.
    """
    chosen = _Options(**options)
    if chosen.out is not None:
        require_no_part_folder(chosen.out)
    checkpoint = run.checkpoint(chosen.checkpoint)
    info = checkpoint.info
    outside = read_outside_set(
        images, info.classes, info.positive, root=root, allow_outside=allow_outside, options=reading
    )
    run.console.note(f"{outside.name}: {len(outside.rows):,} images")
    for line in outside.lines:
        run.console.note(line if line.startswith("note: ") else f"  {line}")
    predictor, out_dir = _predictor(run, checkpoint, chosen), chosen.out_dir(run, outside.name)
    known = run.known_samples(predictor.checkpoint, need_source=True)
    found = evaluate_outside(predictor, outside, known, out_dir, bootstrap=chosen.bootstrap, for_excel=chosen.for_excel)
    return RunEvaluation(
        run=run.path,
        part=outside.name,
        out=out_dir,
        results=found.results,
        note=positive_note(info),
        num_known=found.num_known,
        num_images=len(outside.rows),
        failures=found.failures,
    )


def _predictor(run: OpenRun, checkpoint: Checkpoint, chosen: _Options, data: SplitCache | None = None) -> Predictor:
    """Return the network as the run was evaluated, else as the options say, from the weights that training left."""
    if not chosen.is_decided_anew:
        return run.predictor(checkpoint)
    decided = checkpoint.info.judging or {}
    tta = chosen_tta(checkpoint.info, chosen.tta, chosen.tta_average)
    batchnorm = chosen.batchnorm or decided.get("batchnorm", {}).get("mode", RUNNING)
    base = run.predictor(run.checkpoint(decided["checkpoint"]) if decided else checkpoint)
    settings = EvaluationSettings(tta=tta, batchnorm=batchnorm)
    with nullcontext(data) if data is not None else run.data() as samples:
        return prepare_predictor(base, samples, settings)[0]
