"""Read files, caches and tables as images of an audit, and apply the split of a training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leukemia_data.auditing.audit_image import AuditImage, Check, cell_print, measure_frame, photo_of
from leukemia_data.auditing.audit_pairs import Sides
from leukemia_data.caches.cache import Cache
from leukemia_data.console import NULL_CONSOLE, Console, tracked
from leukemia_data.decoding.decode import decode_frame, frame_digest, is_all_black, map_in_threads, read_file
from leukemia_data.decoding.look import image_look
from leukemia_data.errors import ImageError
from leukemia_data.records.fingerprint import DIGEST_BYTES
from leukemia_data.records.record import UNKNOWN_LABEL, Record
from leukemia_data.records.sample_table import SampleTable, decode_texts
from leukemia_data.scanning.frame_finding import FrameTraits, read_traits
from leukemia_data.sources.reading import SubjectsFound
from leukemia_data.splitting.leaks import LeakCheck, check_leaks
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED, SplitSpec
from leukemia_data.splitting.splits import assign_split


def inspect_records(
    records: Sequence[Record],
    classes: Sequence[str],
    *,
    argument: int = 0,
    with_sha256: bool = False,
    num_threads: int = 1,
) -> Iterator[AuditImage]:
    """Read and measure the original images of a source, in the order of its records.

    Parameters
    ----------
    records, classes
        From :func:`~leukemia_data.sources.source.list_source`.
    argument
        Index of the source, stored in the images.
    with_sha256
        Whether to compute the files' SHA-256, for comparison with a table of names.
    num_threads
        Files read and decoded in parallel.

    Yields
    ------
    AuditImage
        If it is unusable, with the reason in ``problem``.
    """
    task = partial(_inspect, classes=classes, argument=argument, with_sha256=with_sha256)
    yield from map_in_threads(task, records, num_threads)


def cache_audit_images(cache: Cache, *, argument: int = 0, console: Console = NULL_CONSOLE) -> list[AuditImage]:
    """Return the images of a cache, with digests of the originals and prints of the cached cells; quarantined last."""
    table, classes = cache.table, cache.manifest.classes
    columns = zip(table.id_texts, table.labels.tolist(), table.subject_texts, decode_texts(table.splits), strict=True)
    images = []
    for row, (name, label, subject, split) in enumerate(tracked(columns, console, len(table), "hashing the cache")):
        image = AuditImage(
            name=name,
            argument=argument,
            class_name=_class_name(label, classes),
            subject=subject,
            photo=photo_of(name),
            split=split,
            fold=int(table.folds[row]),
            row=row,
            pixel_digest=table.pixel_digests[row].tobytes(),
            look=table.looks[row].tobytes() if cache.manifest.has_looks else b"",
            cell_print=cell_print(cache.reader.image(row)),
        )
        images.append(image)
    left_out = cache.manifest.quarantined
    return images + [AuditImage(name=one.record_id, argument=argument, problem=one.reason) for one in left_out]


def _inspect(record: Record, *, classes: Sequence[str], argument: int, with_sha256: bool) -> AuditImage:
    image = AuditImage(
        name=record.record_id,
        argument=argument,
        class_name=_class_name(record.label, classes),
        subject=record.subject,
        photo=photo_of(record.record_id),
        split=record.split,
        fold=record.fold,
        path=record.path,
        size_bytes=record.state.size_bytes,
    )
    try:
        data = read_file(record.path).data
        if with_sha256:
            image = replace(image, sha256=hashlib.sha256(data.data).digest())
        frame = decode_frame(data)
    except ImageError as error:
        return replace(image, problem=str(error))
    if is_all_black(frame):
        # Unusable, but reported by name among the odd frames.
        return replace(image, frame=measure_frame(frame))
    return replace(
        image,
        pixel_digest=frame_digest(frame),
        look=image_look(frame).tobytes(),
        frame=measure_frame(frame),
        traits=_traits(data, frame),
        cell_print=cell_print(frame),
    )


def _traits(data: NDArray[np.uint8], frame_HWC: NDArray[np.uint8]) -> FrameTraits | None:
    try:
        return read_traits(data, frame_HWC)
    except Exception:  # Pillow's readers may raise anything on odd headers; OpenCV has decoded it.
        return None


def _class_name(label: int, classes: Sequence[str]) -> str:
    return "" if label == UNKNOWN_LABEL else classes[label]


@dataclass(frozen=True, slots=True)
class TrainingSplit:
    """Assignment of images to the parts of a split, as in ``ltrain``.

    Attributes
    ----------
    of_image
        Part of each image: ``train``, ``valid``, ``test``, or empty.
    leaks
        Leaks between the parts.
    """

    spec: SplitSpec
    seed: int
    of_image: tuple[str, ...]
    leaks: LeakCheck

    @property
    def sides(self) -> Sides:
        """The parts as a division for the audit."""
        return Sides("training", f"parts of split {self._name}", self.of_image)

    @property
    def stamp(self) -> Check:
        """The stamp of the split in reports of such a training."""
        leaks = self.leaks
        num_shared = leaks.shared_subjects + leaks.shared_images + leaks.near_images
        return Check(
            "training_stamp",
            "LEAK" if num_shared else "ok" if leaks.is_disjoint else "LOOK",
            num_shared,
            f"leaks that training on split {self._name} would be stamped with: {leaks.stamp}",
        )

    @property
    def _name(self) -> str:
        return f"{self.spec}, split seed {self.seed}"


def training_split(
    spec: SplitSpec,
    images: Sequence[AuditImage],
    seed: int,
    classes: Sequence[str],
    subjects: SubjectsFound | None = None,
) -> TrainingSplit:
    """Assign images to the parts of a split, as ``ltrain`` does with their cache.

    Parameters
    ----------
    spec, seed
        The split; a source and its cache are split equally.
    images
        Unusable ones are in no part.
    classes
        A class's position is its label.
    subjects
        How the subjects were read, if known.

    Raises
    ------
    UsageError
        If the images cannot be split so.
    """
    usable = [number for number, image in enumerate(images) if image.content_keys]
    table = _sample_table([images[number] for number in usable], classes)
    codes = assign_split(spec, table, seed, classes, subjects)
    of_image = [""] * len(images)
    for number, code in zip(usable, codes.tolist(), strict=True):
        of_image[number] = "" if code == UNUSED else SPLIT_NAMES[code]
    return TrainingSplit(spec, seed, tuple(of_image), check_leaks(codes, table, subjects))


def _sample_table(images: Sequence[AuditImage], classes: Sequence[str]) -> SampleTable:
    labels = {name: label for label, name in enumerate(classes)}
    records = [
        Record(
            record_id=image.name,
            path=Path(),
            label=labels.get(image.class_name, UNKNOWN_LABEL),
            subject=image.subject,
            split=image.split,
            fold=image.fold,
        )
        for image in images
    ]
    table = SampleTable.from_records(records)
    for row, image in enumerate(images):
        table.pixel_digests[row] = np.frombuffer(image.content_keys[0][:DIGEST_BYTES], np.uint8)
        if image.look:
            table.looks[row] = np.frombuffer(image.look, np.int8)
    return table
