"""Labels of images to predict: only those of the run's own classes, whoever named the files.

A name of another class list (a C-NMC file name ``..._all.bmp`` before a network that knows Blast and Healthy) is no
label here: which of the run's classes it would be, nobody knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from leukemia_data.errors import listed
from leukemia_data.samples.record import CELL_CLASSES, UNKNOWN_LABEL, Record
from leukemia_data.sources.class_list import composed, place_of_class
from leukemia_data.sources.found_image import FoundImage
from leukemia_data.sources.name_words import is_cell_class, is_unknown

_NUMBERS = {str(label): label for label in range(len(CELL_CLASSES))}


class OwnLabels(NamedTuple):
    """Images as records, and how many of them bear the name of a class that is none of the run's, by that name."""

    records: list[Record]
    others: Mapping[str, int]


def own_labels(images: Iterable[FoundImage], classes: Sequence[str]) -> OwnLabels:
    """Give images the labels of a run's classes.

    Parameters
    ----------
    images
        With the class names that file names, folders and tables tell.
    classes
        The run's, in the order of their labels.

    Returns
    -------
    OwnLabels
        A label is that of the class that was told, else that of the innermost folder with the name of a class, else
        unknown. `others` counts what file names and tables tell, and folders whose names usually are those of classes.
    """
    records, others = [], Counter[str]()
    for image in images:
        label = own_label(image.class_name, image.record_id, classes)
        if label == UNKNOWN_LABEL and image.class_name and is_other_class(image.class_name, image.record_id):
            others[image.class_name] += 1
        records.append(
            Record(
                image.record_id,
                image.path,
                label,
                composed(image.subject),
                image.split,
                image.fold,
                image.state,
            )
        )
    return OwnLabels(records, others)


def own_label(class_name: str | None, record_id: str, classes: Sequence[str]) -> int:
    """Return the label of one image: that of the class that was told, else of the innermost folder that names one."""
    label = label_of(class_name, classes)
    return _label_of_folders(record_id, classes) if label == UNKNOWN_LABEL else label


def is_other_class(name: str, record_id: str) -> bool:
    """Return whether a name was told as a class, and is not that of a folder, which may be a person's or a batch's."""
    return name not in _folders(record_id) or is_cell_class(name)


def label_of(name: str | None, classes: Sequence[str]) -> int:
    """Return the label of a class's name, -1 where it is none of the classes; case counts where it alone differs.

    0 and 1 are labels of C-NMC's classes too, as in the lab's tables.
    """
    if not name:
        return UNKNOWN_LABEL
    place = place_of_class(name, classes)
    if place is not None:
        return place
    return _NUMBERS.get(name, UNKNOWN_LABEL) if tuple(classes) == CELL_CLASSES else UNKNOWN_LABEL


def others_text(others: Mapping[str, int], classes: Sequence[str]) -> str:
    """Return a note on names that are none of the run's classes."""
    counted = listed((f"{name} ({count:,} images)" for name, count in others.items()), most=4)
    return (
        f"{counted}: named by another list of classes than the run's ({listed(classes)}); their labels are left empty"
    )


def _label_of_folders(record_id: str, classes: Sequence[str]) -> int:
    """The label that the innermost folder of an id tells, if it is known."""
    for name in reversed(_folders(record_id)):
        label = label_of(name, classes)
        if label != UNKNOWN_LABEL or is_unknown(name):
            return label
    return UNKNOWN_LABEL


def _folders(record_id: str) -> list[str]:
    return record_id.replace("\\", "/").split("/")[:-1]
