"""What was read of one part of a source, all its folders or one of its tables, before the parts are joined."""

from __future__ import annotations

from dataclasses import dataclass, field

from leukemia_data.sources.found_image import FoundImage
from leukemia_data.sources.reading import TableFound
from leukemia_data.sources.tree_file import PassedOver


@dataclass(slots=True)
class PartReading:
    """Images, and in words how they were understood; the lists mean what those of ``Reading`` mean.

    Attributes
    ----------
    split_words
        By split: the names that it was read from, as the keys of a dictionary.
    """

    images: list[FoundImage]
    class_sources: list[str] = field(default_factory=list)
    subject_sources: list[str] = field(default_factory=list)
    split_words: dict[str, dict[str, None]] = field(default_factory=dict)
    other_folders: tuple[str, ...] = ()
    tables: list[TableFound] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    notes: list[str] = field(default_factory=list)
    told_by: str = ""
