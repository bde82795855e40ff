"""Evaluate a trained run: on a part of its split, or on labelled images from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """What an evaluation of a run came to.

    Attributes
    ----------
    run
        The run's folder, as it was named.
    part
        The evaluated part, or the name of the outside set.
    out
        The folder that everything was written into.
    results
        Metrics, intervals and all that speaks against them.
    note
        What a reader should know of the positive class, or None.
    num_known
        Of an outside set: how many of its images are images of each part of the run; None for a part.
    num_images, failures
        Of an outside set: the number of its images, and ids of images that could not be used, and are not evaluated.
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


@dataclass(frozen=True)
class _Choice:
    """What may be chosen after training."""

    which: str
    tta: str | None
    tta_average: str | None
    batchnorm: str | None

    @property
    def is_decided_anew(self) -> bool:
        return (self.tta, self.tta_average, self.batchnorm) != (None, None, None)

    def folder_name(self, evaluated: str) -> str:
        """Name of the results' folder: what is evaluated, and how where that is not as the run was."""
        words = [self.which] if self.which != FINAL or self.is_decided_anew else []
        words += [word.replace(":", "") for word in (self.tta, self.tta_average, self.batchnorm) if word is not None]
        return "-".join([evaluated, *words])


def evaluate_run(
    run: OpenRun,
    part: str = TEST,
    *,
    checkpoint: str = FINAL,
    tta: str | None = None,
    tta_average: str | None = None,
    batchnorm: str | None = None,
    out: Path | None = None,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    for_excel: bool = False,
) -> RunEvaluation:
    """Evaluate a run on a part of its split.

    Parameters
    ----------
    run
        From :func:`~leukemia_models.runs.open_run.open_run`.
    part
        ``train``, ``valid``, ``test`` or ``all``.
    checkpoint
        ``final``, ``best`` or ``last``.
    tta, tta_average
        Views of each image, ``none``, ``d4`` or ``rotations:N``, and whether ``logits`` or ``probabilities`` are
        averaged; by default those that the run was evaluated with.
    batchnorm
        ``auto``, ``running`` or ``reestimated``, as in
        :class:`~leukemia_models.training.training_plan.EvaluationSettings`. Where this or the views are given,
        temperature and threshold are fitted anew on the validation part.
    out
        Folder for the results; by default one of the run's own, named by the part and by what was chosen.
    bootstrap
        How intervals are drawn.
    for_excel
        Begin CSV files with a byte order mark.

    Raises
    ------
    UsageError
        If no image of the part has a label, an argument is unknown, or `out` belongs to other results.
    RunError
        If the run's checkpoint or cache is missing, damaged or of something else, or results of another meaning would
        be replaced.
    """
    if out is not None:
        require_no_part_folder(out, part)
    choice = _Choice(checkpoint, tta, tta_average, batchnorm)
    out_dir = out if out is not None else run.folder.part(choice.folder_name(part))
    with run.data() as data:
        predictor = _predictor(run, run.checkpoint(checkpoint), choice, data)
        results = evaluate_part(
            predictor, data, part, out_dir, bootstrap=bootstrap, replaces_others=False, for_excel=for_excel
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
    checkpoint: str = FINAL,
    tta: str | None = None,
    tta_average: str | None = None,
    batchnorm: str | None = None,
    out: Path | None = None,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    for_excel: bool = False,
) -> RunEvaluation:
    """Evaluate a run on labelled images from outside: folders and CSV tables.

    They are prepared by the recipe of the checkpoint. Files that cannot be used are left out and named in the result.

    Parameters
    ----------
    images, root, allow_outside, reading
        As for :func:`leukemia_data.sources.source.list_source`; classes must be those of the run, by name.
    run, checkpoint, tta, tta_average, batchnorm, out, bootstrap, for_excel
        As for :func:`evaluate_run`; `out` is by default named by the images.

    Raises
    ------
    UsageError, SourceError
        If the images cannot be listed, are of other classes, none has a label, or `out` belongs to a run's results.
    RunError
        As :func:`evaluate_run`, or if no image can be used.
    """
    if out is not None:
        require_no_part_folder(out)
    choice, opened = _Choice(checkpoint, tta, tta_average, batchnorm), run.checkpoint(checkpoint)
    outside = read_outside_set(
        images, opened.info.classes, opened.info.positive, root=root, allow_outside=allow_outside, options=reading
    )
    run.console.note(f"{outside.name}: {len(outside.rows):,} images")
    for line in outside.lines:
        run.console.note(line if line.startswith("note: ") else f"  {line}")
    if choice.is_decided_anew:
        with run.data() as data:
            predictor = _predictor(run, opened, choice, data)
    else:
        predictor = run.predictor(opened)
    out_dir = out if out is not None else run.folder.part(choice.folder_name(outside.name))
    known = run.known_samples(predictor.checkpoint, need_source=True)
    found = evaluate_outside(predictor, outside, known, out_dir, bootstrap=bootstrap, for_excel=for_excel)
    return RunEvaluation(
        run=run.path,
        part=outside.name,
        out=out_dir,
        results=found.results,
        note=positive_note(predictor.checkpoint.info),
        num_known=found.num_known,
        num_images=len(outside.rows),
        failures=found.failures,
    )


def _predictor(run: OpenRun, checkpoint: Checkpoint, choice: _Choice, data: SplitCache) -> Predictor:
    """The network as the run was evaluated; or decided anew, from the weights that training left."""
    if not choice.is_decided_anew:
        return run.predictor(checkpoint)
    decided = checkpoint.info.judging or {}
    tta = chosen_tta(checkpoint.info, choice.tta, choice.tta_average)
    batchnorm = choice.batchnorm or decided.get("batchnorm", {}).get("mode", RUNNING)
    base = run.checkpoint(decided["checkpoint"]) if decided else checkpoint
    return prepare_predictor(run.predictor(base), data, EvaluationSettings(tta=tta, batchnorm=batchnorm))[0]
