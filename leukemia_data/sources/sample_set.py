"""Sets of generated cells as files: two classes in the tree of C-NMC 2019, or more in a folder for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2

from leukemia_data.errors import SourceError, UsageError
from leukemia_data.files.atomic import PARTIAL_SUFFIX, move_into_place, scratch_path
from leukemia_data.records.record import CELL_CLASSES
from leukemia_data.sources.sample_cells import CELLS_PER_PHOTO, generate_cell

TREE_NAME, KINDS_NAME = "C-NMC_Leukemia", "generated-cells"
MAX_CLASSES = 20
BMP_BYTES = 608_454
"""Size of every file: a header of 54 bytes and 450 rows of 1,350 bytes padded to 1,352."""

_NUM_FOLDS = 3
_HEM, _ALL = CELL_CLASSES.index("hem"), CELL_CLASSES.index("all")


@dataclass(frozen=True, slots=True)
class SampleCell:
    """One image of the sample.

    ``subject_number`` starts at 1, of two classes in both (1 and H1 are different people), ``cell_index`` at 0.
    """

    label: int
    subject_number: int
    cell_index: int
    fold: int
    num_classes: int = len(CELL_CLASSES)

    @property
    def relative_path(self) -> str:
        """Path below the sample's folder, with ``/`` between its parts."""
        if self.num_classes > len(CELL_CLASSES):
            name = f"cell_{self.cell_index + 1:03d}.bmp"
            return f"{KINDS_NAME}/kind-{self.label + 1:02d}/patient_{self.subject_number:03d}/{name}"
        class_name = CELL_CLASSES[self.label]
        subject = f"{'H' if self.label == _HEM else ''}{self.subject_number}"
        photo, cell = divmod(self.cell_index, CELLS_PER_PHOTO)
        name = f"UID_{subject}_{photo + 1}_{cell + 1}_{class_name}.bmp"
        return f"{TREE_NAME}/training_data/fold_{self.fold}/{class_name}/{name}"


@dataclass(frozen=True, slots=True)
class SampleSummary:
    """Contents of a sample, whether its files existed before or not.

    Attributes
    ----------
    root
        The folder that holds the tree.
    num_images, num_bytes
        Number and total size of the image files.
    num_all_subjects, num_hem_subjects
        Of two classes: subjects with leukaemia, and healthy ones. Of more: of the first kind, and of the other kinds.
    """

    root: Path
    num_images: int
    num_all_subjects: int
    num_hem_subjects: int
    num_bytes: int


def plan_sample(num_subjects: int, cells_per_subject: int, num_classes: int = len(CELL_CLASSES)) -> list[SampleCell]:
    """List the sample's cells, of subjects with one class each.

    Of two classes, two thirds of the subjects have leukaemia, each in one fold; of more, all have as many subjects.

    Raises
    ------
    UsageError
        If there are fewer subjects than classes, no cells, or not 2 to 20 classes.
    """
    if not len(CELL_CLASSES) <= num_classes <= MAX_CLASSES:
        raise UsageError(f"a sample has {len(CELL_CLASSES)} to {MAX_CLASSES} classes, not {num_classes}")
    if num_subjects < num_classes:
        raise UsageError(f"a sample needs at least {num_classes} subjects, one of each class, not {num_subjects}")
    if cells_per_subject < 1:
        raise UsageError(f"a sample needs at least 1 cell per subject, not {cells_per_subject}")
    return [
        SampleCell(label, number, cell_index, fold=(number - 1) % _NUM_FOLDS, num_classes=num_classes)
        for label, number in _subjects(num_subjects, num_classes)
        for cell_index in range(cells_per_subject)
    ]


def _subjects(num_subjects: int, num_classes: int) -> list[tuple[int, int]]:
    """Return the class and the number of each subject."""
    if num_classes > len(CELL_CLASSES):
        return [(index % num_classes, index + 1) for index in range(num_subjects)]
    num_all = max(1, min(num_subjects - 1, round(num_subjects * 2 / 3)))
    counts = ((_ALL, num_all), (_HEM, num_subjects - num_all))
    return [(label, number) for label, count in counts for number in range(1, count + 1)]


def write_sample(
    out_dir: Path,
    *,
    num_subjects: int = 24,
    cells_per_subject: int = 20,
    num_classes: int = len(CELL_CLASSES),
    seed: int = 0,
    num_threads: int = 2,
    progress: Callable[[int], object] | None = None,
) -> SampleSummary:
    """Write the sample below `out_dir`.

    Two classes become ``C-NMC_Leukemia/training_data/fold_{0,1,2}/{all,hem}/UID_*.bmp``, more
    ``generated-cells/kind-01/patient_001/cell_001.bmp`` and so on.

    Existing files of the same sample are compared and kept, so that a repeated call completes a stopped one. Every
    file is written atomically.

    Parameters
    ----------
    out_dir
        Created if absent.
    num_subjects, cells_per_subject, num_classes, seed
        As for :func:`plan_sample` and :func:`generate_cell`.
    num_threads
        Images generated at a time.
    progress
        Called with 1 after each image, in the calling thread.

    Raises
    ------
    UsageError
        If an argument is out of its range.
    SourceError
        If the tree holds anything else (nothing is written then), or cannot be written.
    """
    if seed < 0:
        raise UsageError(f"the seed of a sample must be 0 or more, not {seed}")
    if num_threads < 1:
        raise UsageError(f"a sample needs at least 1 thread, not {num_threads}")
    cells = plan_sample(num_subjects, cells_per_subject, num_classes)
    try:
        _write_cells(out_dir, cells, seed, num_threads, progress)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError(f"cannot write the sample to {error.filename or out_dir}: {reason}") from error
    first = _ALL if num_classes == len(CELL_CLASSES) else 0
    num_first = sum(label == first for label, _ in _subjects(num_subjects, num_classes))
    num_bytes = len(cells) * BMP_BYTES
    return SampleSummary(out_dir, len(cells), num_first, num_subjects - num_first, num_bytes)


def _write_cells(
    out_dir: Path,
    cells: Sequence[SampleCell],
    seed: int,
    num_threads: int,
    progress: Callable[[int], object] | None,
) -> None:
    """Check all existing files before the first write, then write the missing ones."""
    paths = {cell.relative_path for cell in cells}
    _refuse_other_files(out_dir, out_dir / min(paths).partition("/")[0], paths)
    present = {cell: (out_dir / cell.relative_path).exists() for cell in cells}
    missing = [cell for cell in cells if not present[cell]]
    _for_each(partial(_check_file, out_dir, seed), [cell for cell in cells if present[cell]], num_threads, progress)
    for folder in sorted({(out_dir / cell.relative_path).parent for cell in missing}):
        folder.mkdir(parents=True, exist_ok=True)
    _for_each(partial(_write_file, out_dir, seed), missing, num_threads, progress)


def _refuse_other_files(out_dir: Path, tree: Path, own_paths: set[str]) -> None:
    """Raise if the tree holds other files, or links."""
    others = sorted(
        path
        for path in tree.rglob("*")
        if (path.is_symlink() or path.is_file())
        and not path.name.startswith(".")
        and not path.name.endswith(PARTIAL_SUFFIX)
        and path.relative_to(out_dir).as_posix() not in own_paths
    )
    if others:
        raise SourceError(
            f"{tree} holds {len(others)} files that are not of this sample, such as {others[0]}; "
            "generated cells are not mixed with other images: choose an empty folder"
        )


def _for_each(
    task: Callable[[SampleCell], None],
    cells: Sequence[SampleCell],
    num_threads: int,
    progress: Callable[[int], object] | None,
) -> None:
    """Run `task` on every cell in threads; the first error, or Ctrl-C, cancels what has not started."""
    executor = ThreadPoolExecutor(num_threads)
    try:
        for future in [executor.submit(task, cell) for cell in cells]:
            future.result()
            if progress is not None:
                progress(1)
    finally:
        executor.shutdown(cancel_futures=True)


def _check_file(out_dir: Path, seed: int, cell: SampleCell) -> None:
    path = out_dir / cell.relative_path
    if path.read_bytes() != _encode(cell, seed):
        raise SourceError(
            f"{path} is not this sample's image (another seed, another version, or real data); nothing was changed: "
            "choose an empty folder"
        )


def _write_file(out_dir: Path, seed: int, cell: SampleCell) -> None:
    path = out_dir / cell.relative_path
    content = _encode(cell, seed)
    # Not flushed to disk: the next run detects damage by a power cut by comparing.
    with scratch_path(path.parent, path.name) as scratch:
        scratch.write_bytes(content)
        move_into_place(scratch, path)


def _encode(cell: SampleCell, seed: int) -> bytes:
    """The cell's image as a 24-bit BMP file."""
    image = generate_cell(seed, cell.subject_number, cell.cell_index, cell.label, cell.num_classes)
    is_encoded, buffer = cv2.imencode(".bmp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not is_encoded or buffer.size != BMP_BYTES:
        raise SourceError(f"OpenCV {cv2.__version__} did not encode a 24-bit BMP of {BMP_BYTES:,} bytes")
    return buffer.tobytes()
