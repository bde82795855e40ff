"""Subjects and images that weights have seen, and their overlap with a split.

A network that starts from trained weights has seen their images too. :func:`samples_of_split` returns what a training
sees, :func:`joined` adds what earlier ones saw, and :func:`meets` finds the validation and test samples of another
split that are among them.

Images are identified by the first 8 bytes of their pixel digest, and up to :data:`MAX_LOOKS` also by their looks,
which finds near-identical copies; subjects by 8 bytes of their name's digest. That is 72 bytes per image, beyond that
number 8; names are not stored. Two different images of two sets of two million share a key with a probability of
about 1 in 5 million.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leukemia_data.records.fingerprint import bytes_digest
from leukemia_data.records.near_looks import LOOK_VALUES, near_rows
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.sources.reading import CNMC_NAMING
from leukemia_data.splitting.split_spec import SPLIT_NAMES, SplitCodes
from leukemia_data.splitting.subject_groups import linked_groups, shown_codes, text_codes

MAX_LOOKS = 100_000
"""Maximal number of stored looks of one source."""
Keys = NDArray[np.uint64]
Looks = NDArray[np.int8]
_KEY_BYTES = 8
_TRAIN, _VALID, _TEST = range(len(SPLIT_NAMES))
_NO_KEYS: Keys = np.zeros(0, np.uint64)
_NO_LOOKS: Looks = np.zeros((0, LOOK_VALUES), np.int8)


@dataclass(frozen=True, slots=True)
class Naming:
    """How a source names its subjects.

    Attributes
    ----------
    source
        The source's own name, from its caches' manifests.
    subjects_from
        What its subjects were read from; empty if unknown.
    """

    source: str
    subjects_from: str

    def names_same_people(self, other: Naming) -> bool:
        """Return whether equal names are known to mean the same people: both C-NMC's, or of one source."""
        return self == other or self.subjects_from == other.subjects_from == CNMC_NAMING


@dataclass(frozen=True, eq=False, slots=True)
class SeenSource:
    """Samples of one source that weights have seen; all keys are sorted and unique, of shape (k,), uint64.

    Attributes
    ----------
    naming
        How the subjects are named.
    trained_images, trained_subjects
        Keys of the training data.
    chosen_images, chosen_subjects
        Keys of the data that chose among weights: the best epoch, the end of training.
    rows
        Keys of ids with their subjects, if the images' digests are unknown.
    trained_looks, chosen_looks
        The different looks of the images, of shape (k, 64), int8; none if there are more than :data:`MAX_LOOKS`.
    """

    naming: Naming
    trained_images: Keys = field(default_factory=_NO_KEYS.copy)
    trained_subjects: Keys = field(default_factory=_NO_KEYS.copy)
    chosen_images: Keys = field(default_factory=_NO_KEYS.copy)
    chosen_subjects: Keys = field(default_factory=_NO_KEYS.copy)
    rows: Keys = field(default_factory=_NO_KEYS.copy)
    trained_looks: Looks = field(default_factory=_NO_LOOKS.copy)
    chosen_looks: Looks = field(default_factory=_NO_LOOKS.copy)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SeenSource):
            return NotImplemented
        return self.naming == other.naming and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in COLUMNS
        )


COLUMNS = tuple(each.name for each in fields(SeenSource) if each.name != "naming")
LOOK_COLUMNS = tuple(name for name in COLUMNS if name.endswith("looks"))


@dataclass(frozen=True, slots=True)
class SeenSamples:
    """All that weights have seen.

    Attributes
    ----------
    sources
        One entry per source.
    is_complete
        False if some of it is unknown, as for weights from elsewhere.
    """

    sources: tuple[SeenSource, ...] = ()
    is_complete: bool = True


NOTHING_SEEN = SeenSamples()
UNKNOWN_ORIGIN = SeenSamples(is_complete=False)


@dataclass(frozen=True, slots=True)
class SeenBefore:
    """Samples of a split that the start weights of a training have seen.

    Attributes
    ----------
    subjects
        Validation and test subjects that the weights were trained on, and test subjects that chose among weights.
    images
        As `subjects`, for images.
    num_samples
        All validation and test samples of these subjects and images.
    is_known
        Whether everything that the weights have seen is known.
    namesakes
        Validation and test subjects with the name of one that the weights were trained on, in an unrelated source.
    """

    subjects: int = 0
    images: int = 0
    num_samples: int = 0
    is_known: bool = True
    namesakes: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SeenBefore:
        """Return the value of a dictionary from ``dataclasses.asdict``, read from JSON.

        Raises
        ------
        TypeError, ValueError
            If it has another form.
        """
        kinds = {name: bool if name == "is_known" else int for name in values}
        wrong = [name for name, value in values.items() if type(value) is not kinds[name] or value < 0]
        if wrong:
            raise ValueError(f"{wrong[0]} is {values[wrong[0]]!r:.40}")
        return cls(**values)

    @property
    def is_leak(self) -> bool:
        """Whether validation or test samples have been seen."""
        return bool(self.subjects or self.images)


NOTHING_SEEN_BEFORE = SeenBefore()


def samples_of_split(table: SampleTable, codes: SplitCodes, naming: Naming) -> SeenSamples:
    """Return what a training on this split sees: ``train`` for training, ``valid`` for choices.

    Parameters
    ----------
    table
        The n samples of a cache.
    codes
        Of shape (n,): position in :data:`~leukemia_data.splitting.split_spec.SPLIT_NAMES`, or UNUSED.
    naming
        How the subjects are named.
    """
    images, subjects = image_keys(table.pixel_digests), text_keys(table.subjects.tolist())
    columns: dict[str, Any] = {}
    for kind, code in (("trained", _TRAIN), ("chosen", _VALID)):
        columns[f"{kind}_images"] = np.unique(images[codes == code])
        columns[f"{kind}_subjects"] = np.unique(subjects[(codes == code) & (table.subjects != b"")])
        columns[f"{kind}_looks"] = _different_looks(table.looks[codes == code])
    return SeenSamples((SeenSource(naming, **columns),))


def joined(first: SeenSamples, second: SeenSamples) -> SeenSamples:
    """Return everything seen by weights that saw one after the other."""
    sources = {source.naming: source for source in first.sources}
    for source in second.sources:
        earlier = sources.get(source.naming)
        sources[source.naming] = source if earlier is None else _united(earlier, source)
    return SeenSamples(tuple(sources.values()), first.is_complete and second.is_complete)


def without_looks(seen: SeenSamples) -> SeenSamples:
    """Return the same without looks: near-identical images are not found then."""
    columns: dict[str, Any] = dict.fromkeys(LOOK_COLUMNS, _NO_LOOKS)
    return replace(seen, sources=tuple(replace(source, **columns) for source in seen.sources))


def _united(one: SeenSource, other: SeenSource) -> SeenSource:
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        both = np.concatenate((getattr(one, name), getattr(other, name)))
        columns[name] = _different_looks(both) if name in LOOK_COLUMNS else np.unique(both)
    return SeenSource(one.naming, **columns)


def _different_looks(looks_N64: Looks) -> Looks:
    """Different looks, sorted; none if they are too many."""
    different = np.unique(looks_N64[looks_N64.any(axis=1)], axis=0)
    return different if len(different) <= MAX_LOOKS else _NO_LOOKS


def meets(seen: SeenSamples, table: SampleTable, codes: SplitCodes, naming: Naming) -> SeenBefore:
    """Find the validation and test samples of a split that weights have seen.

    A sample has been seen if its image or its subject has: a subject that has a seen image, that is tied to such a
    one by identical images, or that bears a seen name. Names count if both sources name the same people (see
    :meth:`Naming.names_same_people`), or share an image; otherwise they are namesakes. Training data must be in
    neither part; data that chose among weights may choose again, but must not be in the test part.

    Parameters
    ----------
    seen
        What the weights have seen.
    table, codes, naming
        As for :func:`samples_of_split`.
    """
    if not seen.sources:
        return SeenBefore(is_known=seen.is_complete)
    images, subjects = image_keys(table.pixel_digests), text_keys(table.subjects.tolist())
    groups = linked_groups(table)
    parts = {"trained": (codes == _VALID) | (codes == _TEST), "chosen": codes == _TEST}
    is_seen_image, is_seen, is_namesake = np.zeros((3, len(table)), np.bool_)
    for source in seen.sources:
        is_one_naming = source.naming.names_same_people(naming) or _shares_samples(source, table, images)
        for kind, is_forbidden in parts.items():
            known = np.isin(images, getattr(source, f"{kind}_images"))
            has_image = _same_image(table, known | near_rows(getattr(source, f"{kind}_looks"), table.looks))
            has_name = np.isin(subjects, getattr(source, f"{kind}_subjects")) & (table.subjects != b"")
            is_person = has_image | has_name if is_one_naming else has_image
            is_seen_image |= has_image & is_forbidden
            is_seen |= np.isin(groups, groups[is_person]) & is_forbidden
            is_namesake |= has_name & is_forbidden & (not is_one_naming)
    is_seen_image |= is_seen & (table.subjects == b"")
    return SeenBefore(
        subjects=_num_subjects(table, is_seen),
        images=int(is_seen_image.sum()),
        num_samples=int((is_seen | is_seen_image).sum()),
        is_known=seen.is_complete,
        namesakes=_num_subjects(table, is_namesake & ~is_seen),
    )


def near_seen(seen: SeenSamples, looks_N64: Looks) -> NDArray[np.bool_]:
    """Return which of N images, by their looks (N, 64), are identical or near-identical to a seen one."""
    columns = [getattr(source, name) for source in seen.sources for name in LOOK_COLUMNS]
    return near_rows(np.concatenate([_NO_LOOKS, *columns]), looks_N64)


def _same_image(table: SampleTable, is_seen_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Extend samples by all identical and near-identical ones."""
    codes = shown_codes(table)
    return np.isin(codes, codes[is_seen_N])


def _shares_samples(source: SeenSource, table: SampleTable, images: Keys) -> bool:
    """Whether the table has an image of the source, or, if its images are unknown, an id with the same subject."""
    known = np.concatenate((source.trained_images, source.chosen_images))
    if np.isin(images, known).any():
        return True
    return len(source.rows) > 0 and bool(
        np.isin(row_keys(table.ids.tolist(), table.subjects.tolist()), source.rows).any()
    )


def _num_subjects(table: SampleTable, chosen: NDArray[np.bool_]) -> int:
    return len(np.unique(text_codes(table.subjects)[chosen & (table.subjects != b"")]))


def image_keys(digests: NDArray[np.uint8]) -> Keys:
    """Return the keys of images, shape (n,): the first 8 bytes of their pixel digests (n, 16)."""
    return np.ascontiguousarray(digests[:, :_KEY_BYTES]).view("<u8").reshape(len(digests)).astype(np.uint64)


def text_keys(texts: Sequence[bytes]) -> Keys:
    """Return the keys of n texts in UTF-8, such as subjects' names, shape (n,)."""
    key_of = {text: int.from_bytes(bytes_digest(text)[:_KEY_BYTES], "little") for text in set(texts)}
    return np.array([key_of[text] for text in texts], np.uint64)


def row_keys(ids: Sequence[bytes], subjects: Sequence[bytes]) -> Keys:
    """Return the keys of n ids with their subjects, both in UTF-8, shape (n,)."""
    return text_keys([b"\0".join(pair) for pair in zip(ids, subjects, strict=True)])
