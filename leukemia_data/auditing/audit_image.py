"""One image as an audit sees it, whatever it came from: a file, a cache or a table of names."""

from __future__ import annotations

from dataclasses import dataclass

from leukemia_data.auditing.frame_check import FrameFacts
from leukemia_data.auditing.perceptual_hash import CellPrint
from leukemia_data.samples.record import NO_FOLD, ImagePlace, parse_cell_name
from leukemia_data.scanning.frame_traits import FrameTraits


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditImage:
    """What is known of one image; what cannot be known keeps its default.

    Attributes
    ----------
    name
        Its id in what it came from.
    argument
        Number of the cache, source or table it came from.
    class_name, subject, photo
        Empty where unknown. The photo names its subject too: cells of one photo were cut from one photograph.
    split, fold
        What the source brought.
    path, row
        Where its pixels can be had again: its file, or its sample number in the cache.
    pixel_digest
        Digest of the decoded original frame (16 bytes).
    sha256
        SHA-256 of the original file (32 bytes).
    size_bytes
        Of the original file, -1 where unknown.
    look
        Of the decoded original frame (64 bytes), see :mod:`leukemia_data.pixels.look`; empty where it is not known.
    frame, traits, cell_print
        Measurements of the original frame, what it tells apart from its cell, and the look of the cell.
    problem
        Why the image cannot be used; empty for the others.
    """

    name: str
    argument: int = 0
    class_name: str = ""
    subject: str = ""
    photo: str = ""
    split: str = ""
    fold: int = NO_FOLD
    path: ImagePlace | None = None
    row: int = -1
    pixel_digest: bytes = b""
    look: bytes = b""
    sha256: bytes = b""
    size_bytes: int = -1
    frame: FrameFacts | None = None
    traits: FrameTraits | None = None
    cell_print: CellPrint | None = None
    problem: str = ""

    @property
    def content_keys(self) -> tuple[bytes, ...]:
        """What identical images have in common: equal pixels, or equal bytes."""
        return tuple(key for key in (self.pixel_digest, self.sha256) if key)


def photo_of(file_name: str) -> str:
    """The photograph that a C-NMC file name speaks of, such as ``H3/12``; empty where it is not one."""
    cell = parse_cell_name(file_name.rsplit("/", 1)[-1])
    return "" if cell is None else f"{cell.subject}/{cell.photo}"
