"""From records, caches and tables of names to the images of an audit; originals are decoded in threads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from leukemia_data.auditing.audit_image import AuditImage, photo_of
from leukemia_data.auditing.frame_check import measure_frame
from leukemia_data.auditing.perceptual_hash import cell_print
from leukemia_data.auditing.reference_table import ReferenceRow
from leukemia_data.caches.cache import Cache
from leukemia_data.errors import ImageError
from leukemia_data.pixels.decode import decode_frame, is_all_black
from leukemia_data.pixels.frame_digest import frame_digest
from leukemia_data.pixels.look import image_look
from leukemia_data.samples.record import UNKNOWN_LABEL, Record
from leukemia_data.samples.sample_table import decode_texts
from leukemia_data.scanning.frame_traits import FrameTraits, read_traits
from leukemia_data.sources.source_file import read_file

Progress = Callable[[int], object]


def inspect_records(
    records: Sequence[Record],
    classes: Sequence[str],
    *,
    argument: int = 0,
    with_sha256: bool = False,
    num_threads: int = 1,
    progress: Progress | None = None,
) -> list[AuditImage]:
    """Read and measure the originals of a source.

    Parameters
    ----------
    records, classes
        From :func:`~leukemia_data.sources.source.list_source`.
    argument
        Number that the images carry.
    with_sha256
        Whether to compute the SHA-256 of the files too, to compare them with a table of names.
    num_threads
        Files read and decoded at a time.
    progress
        Called with 1 after each image, in the calling thread.

    Returns
    -------
    list of AuditImage
        In the order of the records; what cannot be used has its reason in ``problem``.
    """
    images = []
    executor = ThreadPoolExecutor(num_threads)
    try:
        task = partial(_inspect, classes=classes, argument=argument, with_sha256=with_sha256)
        for image in executor.map(task, records):
            images.append(image)
            if progress is not None:
                progress(1)
    finally:
        executor.shutdown(cancel_futures=True)
    return images


def cache_audit_images(cache: Cache, *, argument: int = 0, progress: Progress | None = None) -> list[AuditImage]:
    """Images of a cache: digests of the originals, the look of the cached cells, and what the build left out."""
    table, classes = cache.table, cache.manifest.classes
    digests = [digest.tobytes() for digest in table.pixel_digests]
    columns = zip(table.id_texts, table.labels.tolist(), table.subject_texts, decode_texts(table.splits), strict=True)
    images = []
    for row, (name, label, subject, split) in enumerate(columns):
        image = AuditImage(
            name=name,
            argument=argument,
            class_name=_class_name(label, classes),
            subject=subject,
            photo=photo_of(name),
            split=split,
            fold=int(table.folds[row]),
            row=row,
            pixel_digest=digests[row],
            look=table.looks[row].tobytes() if cache.manifest.has_looks else b"",
            cell_print=cell_print(cache.reader.image(row)),
        )
        images.append(image)
        if progress is not None:
            progress(1)
    left_out = cache.manifest.quarantined
    return images + [AuditImage(name=one.record_id, argument=argument, problem=one.reason) for one in left_out]


def reference_audit_images(rows: Sequence[ReferenceRow], *, argument: int = 0) -> list[AuditImage]:
    """Images of a table of names: everything but pixels."""
    return [
        AuditImage(
            name=row.name,
            argument=argument,
            class_name=row.class_name,
            subject=row.subject,
            photo=row.photo,
            split=row.split,
            fold=row.fold,
            sha256=row.sha256,
            size_bytes=row.size_bytes,
        )
        for row in rows
    ]


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
    except ImageError as error:
        return replace(image, problem=str(error))
    if with_sha256:
        image = replace(image, sha256=hashlib.sha256(data.data).digest())
    try:
        frame = decode_frame(data)
    except ImageError as error:
        return replace(image, problem=str(error))
    if is_all_black(frame):
        # Unusable, but a table of odd frames should call it by its name.
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
    except Exception:  # Pillow's readers end in whatever an odd header leads them into; OpenCV has decoded it.
        return None


def _class_name(label: int, classes: Sequence[str]) -> str:
    return "" if label == UNKNOWN_LABEL else classes[label]
