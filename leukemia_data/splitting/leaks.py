"""What stands on two sides of a split: sample table and codes in, counts and the stamp of every report out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leukemia_data.samples.sample_table import SampleTable
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED, SplitCodes
from leukemia_data.splitting.subject_groups import digest_codes, text_codes

DISJOINT_STAMP = "subject-disjoint"


@dataclass(frozen=True, slots=True)
class LeakCheck:
    """What stands on two sides of a split.

    Attributes
    ----------
    shared_subjects
        Subjects with samples in more than one split.
    shared_images
        Groups of pixel-identical images in more than one split.
    unknown_subjects
        Samples in a split whose subject nothing tells.
    """

    shared_subjects: int
    shared_images: int
    unknown_subjects: int

    @property
    def is_disjoint(self) -> bool:
        """Whether results on this split may be called results on unseen patients."""
        return not (self.shared_subjects or self.shared_images or self.unknown_subjects)

    @property
    def stamp(self) -> str:
        """The words that every table, figure and page of this split carries."""
        if self.is_disjoint:
            return DISJOINT_STAMP
        found = (
            (self.shared_subjects, "subject on both sides", "subjects on both sides"),
            (self.shared_images, "identical image on both sides", "identical images on both sides"),
            (self.unknown_subjects, "image of an unknown subject", "images of unknown subjects"),
        )
        reasons = [f"{count} {one if count == 1 else many}" for count, one, many in found if count]
        return f"PATIENT-MIXED ({', '.join(reasons)})"


def check_leaks(codes: SplitCodes, table: SampleTable) -> LeakCheck:
    """Count what stands on two sides of a split, whichever way it was made.

    Parameters
    ----------
    codes
        Of shape (n,): position in :data:`~leukemia_data.splitting.split_spec.SPLIT_NAMES`, or UNUSED.
    table
        The n samples.
    """
    used = codes != UNUSED
    known = used & (table.subjects != b"")
    return LeakCheck(
        shared_subjects=_num_shared(text_codes(table.subjects[known]), codes[known]),
        shared_images=_num_shared(digest_codes(table.pixel_digests[used]), codes[used]),
        unknown_subjects=int((used & (table.subjects == b"")).sum()),
    )


def _num_shared(keys: NDArray[np.int64], codes: SplitCodes) -> int:
    """Number of keys (from 0) that occur with more than one code."""
    if len(keys) == 0:
        return 0
    num_keys = int(keys.max()) + 1
    occurs = np.zeros((len(SPLIT_NAMES), num_keys), np.bool_)
    occurs[codes, keys] = True
    return int((occurs.sum(axis=0) > 1).sum())
