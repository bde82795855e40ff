"""The split that a training would use, as one more division for the audit to judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leukemia_data.auditing.audit_check import Check
from leukemia_data.auditing.audit_image import AuditImage
from leukemia_data.auditing.audit_pairs import Sides
from leukemia_data.samples.fingerprint import DIGEST_BYTES
from leukemia_data.samples.record import UNKNOWN_LABEL, Record
from leukemia_data.samples.sample_table import SampleTable
from leukemia_data.sources.reading import SubjectsFound
from leukemia_data.splitting.leaks import LeakCheck, check_leaks
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED, SplitSpec
from leukemia_data.splitting.splits import assign_split


@dataclass(frozen=True, slots=True)
class TrainingSplit:
    """Images in the parts of a split, as ``ltrain`` assigns them.

    Attributes
    ----------
    spec, seed
        The split.
    of_image
        Part of each image: ``train``, ``valid``, ``test``, or empty.
    leaks
        What stands on two sides.
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
        """What every report of such a training would say of the split."""
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
    """Assign the images to the parts of a split, as ``ltrain`` does with a cache of them.

    Parameters
    ----------
    spec, seed
        The split; it depends on the images' content, so a source and its cache are divided alike.
    images
        Unusable ones (which no cache would hold) are on no side.
    classes
        A class's position is its label.
    subjects
        How the subjects were read, if that is known.

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
