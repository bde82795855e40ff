"""Where subjects are looked up by content: trees, caches and tables of names in, an index out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from leukemia_data.auditing.audit_pairs import subject_order
from leukemia_data.auditing.reference_table import ReferenceRow
from leukemia_data.caches.cache import Cache
from leukemia_data.errors import ImageError
from leukemia_data.pixels.decode import decode_rgb
from leukemia_data.pixels.frame_digest import frame_digest
from leukemia_data.samples.record import CELL_CLASSES, UNKNOWN_LABEL, Record
from leukemia_data.sources.source_file import read_file


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image of the reference: its name, whose it is and its class; the latter two may be empty."""

    name: str
    subject: str
    class_name: str


@dataclass(frozen=True, slots=True)
class ReferenceIndex:
    """Known images by content: by SHA-256 of the file (32 bytes), and by digest of the decoded pixels (16 bytes)."""

    by_bytes: dict[bytes, list[KnownImage]] = field(default_factory=lambda: defaultdict(list))
    by_pixels: dict[bytes, list[KnownImage]] = field(default_factory=lambda: defaultdict(list))

    @property
    def num_images(self) -> int:
        """Images that were added."""
        return sum(map(len, [*self.by_bytes.values(), *self.by_pixels.values()]))

    def linked_subjects(self) -> list[tuple[str, ...]]:
        """Sets of subjects that share identical images, directly or through others; each in natural order."""
        entries = [*self.by_bytes.values(), *self.by_pixels.values()]
        return linked_sets([{image.subject for image in known if image.subject} for known in entries])

    def add_table(self, rows: Iterable[ReferenceRow]) -> None:
        """Add a table of names."""
        for row in rows:
            self.by_bytes[row.sha256].append(KnownImage(row.name, row.subject, row.class_name))

    def add_cache(self, cache: Cache) -> None:
        """Add the images of a cache: it knows the digests of its originals."""
        table, classes = cache.table, cache.manifest.classes
        rows = zip(table.id_texts, table.subject_texts, table.labels.tolist(), table.pixel_digests, strict=True)
        for name, subject, label, digest in rows:
            class_name = "" if label == UNKNOWN_LABEL else classes[label]
            self.by_pixels[digest.tobytes()].append(KnownImage(name, subject, class_name))

    def add_files(
        self, records: Sequence[Record], *, num_threads: int = 1, progress: Callable[[int], object] | None = None
    ) -> list[str]:
        """Decode the images of a tree and add them.

        Parameters
        ----------
        records
            From :func:`~leukemia_data.sources.source.list_images`.
        num_threads
            Files read and decoded at a time.
        progress
            Called with 1 after each image.

        Returns
        -------
        list of str
            Images that cannot be used, with reasons.
        """
        unusable = []
        executor = ThreadPoolExecutor(num_threads)
        try:
            digests = executor.map(_pixel_digest, [record.path for record in records])
            for record, digest in zip(records, digests, strict=True):
                if isinstance(digest, bytes):
                    class_name = "" if record.label == UNKNOWN_LABEL else CELL_CLASSES[record.label]
                    self.by_pixels[digest].append(KnownImage(record.record_id, record.subject, class_name))
                else:
                    unusable.append(f"{record.path}: {digest}")
                if progress is not None:
                    progress(1)
        finally:
            executor.shutdown(cancel_futures=True)
        return unusable


def linked_sets(sets: Iterable[set[str]]) -> list[tuple[str, ...]]:
    """Join sets that overlap; those of two and more names, each in natural order, in the order of their first names."""
    joined: list[set[str]] = []
    for names in sets:
        if len(names) > 1:
            touching = [other for other in joined if other & names]
            joined = [other for other in joined if not other & names] + [names.union(*touching)]
    return sorted(
        (tuple(sorted(names, key=subject_order)) for names in joined), key=lambda names: subject_order(names[0])
    )


def _pixel_digest(path: Path) -> bytes | ImageError:
    try:
        return frame_digest(decode_rgb(read_file(path).data))
    except ImageError as error:
        return error
