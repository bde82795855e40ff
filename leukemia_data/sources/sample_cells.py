"""A generated stand-in for C-NMC 2019: a seed and two counts in, a file tree of 450x450 BMPs out.

The tree, the file names and the file format are those of the real training set, so every command can be shown and
tested without it. Each image is a function of (seed, subject, cell) alone: more subjects, more cells or more
threads never change an image. Equal bytes are promised for equal versions of NumPy and OpenCV.
Generated cells are never written among other images; nothing medical can be learned from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import SourceError, UsageError
from leukemia_data.files.atomic import PARTIAL_SUFFIX, scratch_path
from leukemia_data.records.record import CELL_CLASSES
from leukemia_data.sources.sample_cell_drawing import LYMPHOBLAST, LYMPHOCYTE, draw_cell, draw_photo, draw_subject

TREE_NAME = "C-NMC_Leukemia"
BMP_BYTES = 608_454
"""Size of every file: a header of 54 bytes and 450 rows of 1,350 bytes padded to 1,352."""
CELLS_PER_PHOTO = 5

_NUM_FOLDS = 3
_HEM, _ALL = CELL_CLASSES.index("hem"), CELL_CLASSES.index("all")
# Which random stream a generator belongs to: the subject's, the photograph's and the cell's never share numbers.
_SUBJECT_STREAM, _PHOTO_STREAM, _CELL_STREAM = 1, 2, 3


@dataclass(frozen=True, slots=True)
class SampleCell:
    """One image of the sample: whose cell, which one of that subject, and in which fold it lies.

    ``subject_number`` starts at 1 in both classes (1 and H1 are different people), ``cell_index`` at 0.
    """

    label: int
    subject_number: int
    cell_index: int
    fold: int

    @property
    def relative_path(self) -> str:
        """Path below the sample's folder, with ``/`` between its parts."""
        class_name = CELL_CLASSES[self.label]
        subject = f"{'H' if self.label == _HEM else ''}{self.subject_number}"
        photo, cell = divmod(self.cell_index, CELLS_PER_PHOTO)
        name = f"UID_{subject}_{photo + 1}_{cell + 1}_{class_name}.bmp"
        return f"{TREE_NAME}/training_data/fold_{self.fold}/{class_name}/{name}"


@dataclass(frozen=True, slots=True)
class SampleSummary:
    """What a sample consists of, whether its files were written now or lay there already.

    Attributes
    ----------
    root
        The folder that holds the ``C-NMC_Leukemia`` tree.
    num_images, num_bytes
        Number and total size of the image files.
    num_all_subjects, num_hem_subjects
        Subjects with leukaemia and healthy ones.
    """

    root: Path
    num_images: int
    num_all_subjects: int
    num_hem_subjects: int
    num_bytes: int


def generate_cell(seed: int, subject_number: int, cell_index: int, label: int) -> NDArray[np.uint8]:
    """Generate one image.

    Parameters
    ----------
    seed
        Chooses the sample; not negative.
    subject_number
        From 1; counted in each class by itself.
    cell_index
        From 0. Each run of 5 cells comes from one photograph.
    label
        0 normal lymphocyte (hem), 1 lymphoblast (all).

    Returns
    -------
    ndarray of uint8, shape (450, 450, 3)
        RGB; 0 outside the cell.
    """
    photo = cell_index // CELLS_PER_PHOTO
    return draw_cell(
        _generator(seed, _CELL_STREAM, label, subject_number, cell_index),
        LYMPHOBLAST if label == _ALL else LYMPHOCYTE,
        draw_subject(_generator(seed, _SUBJECT_STREAM, label, subject_number, 0)),
        draw_photo(_generator(seed, _PHOTO_STREAM, label, subject_number, photo)),
    )


def plan_sample(num_subjects: int, cells_per_subject: int) -> list[SampleCell]:
    """List the sample's cells: two thirds of the subjects have leukaemia, each subject lies in one fold.

    Raises
    ------
    UsageError
        If there are fewer than 2 subjects or no cells.
    """
    if num_subjects < 2:
        raise UsageError(f"a sample needs at least 2 subjects, one of each class, not {num_subjects}")
    if cells_per_subject < 1:
        raise UsageError(f"a sample needs at least 1 cell per subject, not {cells_per_subject}")
    num_all = _count_all_subjects(num_subjects)
    return [
        SampleCell(label, number, cell_index, fold=(number - 1) % _NUM_FOLDS)
        for label, count in ((_ALL, num_all), (_HEM, num_subjects - num_all))
        for number in range(1, count + 1)
        for cell_index in range(cells_per_subject)
    ]


def write_sample(
    out_dir: Path,
    *,
    num_subjects: int = 24,
    cells_per_subject: int = 20,
    seed: int = 0,
    num_threads: int = 2,
    progress: Callable[[int], object] | None = None,
) -> SampleSummary:
    """Write the sample below `out_dir` as ``C-NMC_Leukemia/training_data/fold_{0,1,2}/{all,hem}/UID_*.bmp``.

    Files of the same sample that are there already are compared and left alone, so a stopped run is completed by
    repeating it. Every file appears whole or not at all.

    Parameters
    ----------
    out_dir
        Created where it is absent.
    num_subjects, cells_per_subject, seed
        What to generate; see :func:`plan_sample` and :func:`generate_cell`.
    num_threads
        Images generated at a time.
    progress
        Called with 1 after each image, in the calling thread.

    Raises
    ------
    UsageError
        If an argument is out of its range.
    SourceError
        If the tree holds anything that is not of this sample (nothing is written then), or cannot be written.
    """
    if seed < 0:
        raise UsageError(f"the seed of a sample must be 0 or more, not {seed}")
    if num_threads < 1:
        raise UsageError(f"a sample needs at least 1 thread, not {num_threads}")
    cells = plan_sample(num_subjects, cells_per_subject)
    try:
        _write_cells(out_dir, cells, seed, num_threads, progress)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError(f"cannot write the sample to {error.filename or out_dir}: {reason}") from error
    num_all = _count_all_subjects(num_subjects)
    return SampleSummary(out_dir, len(cells), num_all, num_subjects - num_all, len(cells) * BMP_BYTES)


def _count_all_subjects(num_subjects: int) -> int:
    return max(1, min(num_subjects - 1, round(num_subjects * 2 / 3)))


def _generator(seed: int, stream: int, label: int, subject_number: int, index: int) -> np.random.Generator:
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, label, subject_number, index))
    return np.random.Generator(np.random.Philox(sequence))


def _write_cells(
    out_dir: Path,
    cells: Sequence[SampleCell],
    seed: int,
    num_threads: int,
    progress: Callable[[int], object] | None,
) -> None:
    """Check everything that exists before the first write, then write what is missing."""
    _refuse_other_files(out_dir, {cell.relative_path for cell in cells})
    present = [cell for cell in cells if (out_dir / cell.relative_path).exists()]
    present_paths = {cell.relative_path for cell in present}
    missing = [cell for cell in cells if cell.relative_path not in present_paths]
    _for_each(partial(_check_file, out_dir, seed), present, num_threads, progress)
    for folder in sorted({(out_dir / cell.relative_path).parent for cell in missing}):
        folder.mkdir(parents=True, exist_ok=True)
    _for_each(partial(_write_file, out_dir, seed), missing, num_threads, progress)


def _refuse_other_files(out_dir: Path, own_paths: set[str]) -> None:
    """Raise if the tree holds files, or links that may lead to some, which the sample would not write."""
    others = sorted(
        path
        for path in (out_dir / TREE_NAME).rglob("*")
        if (path.is_symlink() or path.is_file())
        and not path.name.startswith(".")
        and not path.name.endswith(PARTIAL_SUFFIX)
        and path.relative_to(out_dir).as_posix() not in own_paths
    )
    if others:
        raise SourceError(
            f"{out_dir / TREE_NAME} holds {len(others)} files that are not of this sample, such as {others[0]}; "
            "generated cells are not mixed with other images: choose an empty folder"
        )


def _for_each(
    task: Callable[[SampleCell], None],
    cells: Sequence[SampleCell],
    num_threads: int,
    progress: Callable[[int], object] | None,
) -> None:
    """Run `task` on every cell in threads; the first error, or Ctrl-C, drops what has not begun."""
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
            f"{path} is not the image that this sample has there (another seed, another version, or real data); "
            "nothing was changed: choose an empty folder"
        )


def _write_file(out_dir: Path, seed: int, cell: SampleCell) -> None:
    path = out_dir / cell.relative_path
    content = _encode(cell, seed)
    # Not flushed to disk file by file: whatever a power cut spoils, the next run finds by comparing.
    with scratch_path(path.parent, path.name) as scratch:
        scratch.write_bytes(content)
        scratch.replace(path)


def _encode(cell: SampleCell, seed: int) -> bytes:
    """The cell's image as a 24-bit BMP file."""
    image = generate_cell(seed, cell.subject_number, cell.cell_index, cell.label)
    is_encoded, buffer = cv2.imencode(".bmp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not is_encoded or buffer.size != BMP_BYTES:
        raise SourceError(f"OpenCV {cv2.__version__} did not encode a 24-bit BMP of {BMP_BYTES:,} bytes")
    return buffer.tobytes()
