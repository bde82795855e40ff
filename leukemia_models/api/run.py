"""A trained run, opened: evaluated, predicted with, resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from leukemia_data.api.arguments import (
    Place,
    as_location,
    as_optional_path,
    as_path,
    as_root,
    as_sources,
    console_of,
)
from leukemia_data.caches.cache import Part
from leukemia_data.console import Console
from leukemia_data.files.text import html_table, printable
from leukemia_data.lazy_imports import pd
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.splitting.split_spec import SPLIT_NAMES
from leukemia_models.reports.results import read_results
from leukemia_models.runs import open_run as runs_open_run
from leukemia_models.runs.evaluate_run import RunEvaluation, evaluate_images, evaluate_run
from leukemia_models.runs.predict_run import Submissions, predict_images, predict_part, write_submissions
from leukemia_models.runs.resume_runs import RunChanges
from leukemia_models.runs.run_config import MachineOptions
from leukemia_models.runs.run_folder import FINAL, RESULTS_NAME
from leukemia_models.runs.train_plan import resume

PARTS = (*SPLIT_NAMES, "all")


class Run(runs_open_run.OpenRun):
    """A trained run, or the last stage of a plan that has begun; :func:`open_run` and ``train`` return it.

    ``folder`` names its files, ``config`` holds its settings, ``data()`` opens its cache with its split.
    """

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """The content of ``results.json`` of every evaluated part, by its name."""
        found = sorted(path.parent.name for path in self.folder.root.glob(f"*/{RESULTS_NAME}"))
        return {name: read_results(self.folder.part(name) / RESULTS_NAME) for name in found}

    @property
    def history(self) -> pd.DataFrame:
        """Loss and metrics, one row per epoch; empty before the end of the first one."""
        return pd.read_csv(self.folder.history) if self.folder.history.is_file() else pd.DataFrame()

    def evaluate(
        self,
        part: str | Part | Place | Sequence[Place] = "test",
        *,
        root: Place | None = None,
        allow_outside: bool = False,
        reading: ReadingOptions | None = None,
        checkpoint: str = FINAL,
        tta: str | None = None,
        tta_average: str | None = None,
        batchnorm: str | None = None,
        out: Place | None = None,
        for_excel: bool = False,
    ) -> RunEvaluation:
        """Evaluate the network on a part of the run's split, or on labelled images from outside.

        Parameters
        ----------
        part
            ``train``, ``valid``, ``test`` or ``all``; else folders and tables of images.
        root, allow_outside, reading
            As for :func:`leukemia_data.scan`, for images from outside.
        checkpoint, tta, tta_average, batchnorm, for_excel
            As for :func:`~leukemia_models.runs.evaluate_run.evaluate_run`: by default as the run was evaluated.
        out
            Folder for page, tables and figures; by default one below the run.
        """
        how: dict[str, Any] = {
            "checkpoint": checkpoint,
            "tta": tta,
            "tta_average": tta_average,
            "batchnorm": batchnorm,
            "out": as_optional_path(out, "out"),
            "for_excel": for_excel,
        }
        name = _part_name(part)
        if name is not None:
            return evaluate_run(self, name, **how)
        images = _places(part, "part")
        return evaluate_images(self, images, root=as_root(root), allow_outside=allow_outside, reading=reading, **how)

    def predict(
        self,
        images: str | Part | Place | Sequence[Place],
        *,
        root: Place | None = None,
        allow_outside: bool = False,
        checkpoint: str = FINAL,
        tta: str | None = None,
        tta_average: str | None = None,
        out: Place | None = None,
        submission: Place | None = None,
        for_excel: bool = False,
    ) -> pd.DataFrame:
        """Predict images and return a table with a row each; cautions come as warnings.

        Parameters
        ----------
        images
            Files, folders and CSV tables with a column ``Path``; or ``train``, ``valid``, ``test`` or ``all``.
        root, allow_outside, checkpoint, tta, tta_average, for_excel
            As for :meth:`evaluate`.
        out, submission
            CSV files to write: the table, and the lab's ``ID,label``.
        """
        how: dict[str, Any] = {
            "checkpoint": checkpoint,
            "tta": tta,
            "tta_average": tta_average,
            "out": as_optional_path(out, "out"),
            "submission": as_optional_path(submission, "submission"),
            "for_excel": for_excel,
        }
        name = _part_name(images)
        if name is not None:
            found = predict_part(self, name, **how)
        else:
            places = _places(images, "images")
            found = predict_images(self, places, root=as_root(root), allow_outside=allow_outside, **how)
        for text in (*found.cautions, *([found.problem] if found.problem else [])):
            self.console.warn(text)
        return found.table

    def submit(
        self,
        *lists: Place,
        out: Place,
        root: Place | None = None,
        allow_outside: bool = False,
        checkpoint: str = FINAL,
        tta: str | None = None,
        tta_average: str | None = None,
    ) -> Submissions:
        """Write into the folder `out` the lab's submission file for each test list, all of them or none.

        `lists` are CSV tables with a column ``Path``; the other parameters are those of :meth:`evaluate`.
        """
        return write_submissions(
            self,
            as_sources(lists, "lists"),
            as_path(out, "out"),
            root=as_root(root),
            allow_outside=allow_outside,
            checkpoint=checkpoint,
            tta=tta,
            tta_average=tta_average,
        )

    def resume(
        self,
        *,
        epochs: int | None = None,
        extend: str | None = None,
        precision: str | None = None,
        machine: MachineOptions | None = None,
    ) -> Run:
        """Go on with a training that was stopped, or train for more `epochs`; the weights become those without a stop.

        For `extend` and `precision` see :class:`~leukemia_models.runs.resume_runs.RunChanges`.
        """
        options = machine or MachineOptions(device=str(self.device), cache=self.cache_location, copies=self.copies)
        changes = RunChanges(epochs=epochs, extend=extend, precision=precision)
        resume(self.path, changes=changes, machine=options, resume_text=resume_text, console=self.console)
        return _as_run(runs_open_run.open_run(self.path, device=str(self.device), console=self.console))

    def __repr__(self) -> str:
        return printable(f"Run({', '.join(f'{name}={text}' for name, text in self._description())})")

    def _repr_html_(self) -> str:
        """Return a small table, which notebooks show."""
        return html_table(self._description())

    def _description(self) -> Iterator[tuple[str, str]]:
        config, epochs = self.config, len(self.history)
        yield "folder", str(self.folder.root)
        yield "model", config.model_name
        yield "epochs", f"{epochs} of {config.settings.epochs}"
        yield "split", config.split
        for part, result in self.results.items():
            score = result["metrics"].get("balanced_accuracy")
            text = "" if score is None else f"balanced accuracy {score:.3f}, "
            yield part, f"{text}{result['split']['stamp']}"


def open_run(
    path: Place,
    *,
    cache: Place | None = None,
    device: str = "auto",
    batch_size: int = runs_open_run.DEFAULT_BATCH_SIZE,
    verbose: bool | Console = False,
) -> Run:
    """Open a trained run by its folder, or the last stage of a plan that has begun.

    Parameters
    ----------
    cache
        Where its cache is now, if it was moved.
    device, batch_size
        Where networks compute, and on how many images at a time.
    """
    opened = runs_open_run.open_run(
        as_path(path, "path"),
        cache=None if cache is None else as_location(cache, "cache"),
        device=device,
        batch_size=batch_size,
        console=console_of(verbose),
    )
    return _as_run(opened)


def resume_text(folder: Path) -> str:
    """Return the call that resumes what is in a folder."""
    return f"leukemia_models.open_run({str(folder)!r}).resume()"


def _as_run(opened: runs_open_run.OpenRun) -> Run:
    return Run(**{field.name: getattr(opened, field.name) for field in fields(opened)})


def _part_name(part: object) -> str | None:
    """Return the name if it is that of a part; images in a folder of such a name are given with ``./``."""
    name = part.name if isinstance(part, Part) else part
    return name if isinstance(name, str) and name in PARTS else None


def _places(places: Any, name: str) -> list[ImagePlace]:  # noqa: ANN401 - whatever a user gave
    return as_sources(places if isinstance(places, list | tuple) else [places], name)
