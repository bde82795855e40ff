"""What weights have seen: the subjects and images they were trained on or chosen by, and where a split meets them.

A network that starts from trained weights has seen their images too. :func:`samples_of_split` tells what a training
adds to that, :func:`joined` carries it from one training to the next, and :func:`meets` finds the validation and test
samples of another split that are among them.

Images are known by the first 8 bytes of their pixel digest, and as long as they are no more than :data:`MAX_LOOKS` by
their looks too, so that near-identical copies are found; subjects by 8 bytes of their name's digest. That is 72 bytes
an image, beyond that number 8, and no name leaves the cache with the weights. Of two million images each, two different
ones share a key with a probability of about 1 in 5 million.
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
"""Looks of one source that are kept."""
Keys = NDArray[np.uint64]
Looks = NDArray[np.int8]
_KEY_BYTES = 8
_TRAIN, _VALID, _TEST = range(len(SPLIT_NAMES))
_NO_KEYS: Keys = np.zeros(0, np.uint64)
_NO_LOOKS: Looks = np.zeros((0, LOOK_VALUES), np.int8)


@dataclass(frozen=True, slots=True)
class Naming:
    """Whose names a source's subjects are.

    Attributes
    ----------
    source
        The source's own name, as its caches' manifests tell it.
    subjects_from
        What its subjects were read from; empty where that is not known.
    """

    source: str
    subjects_from: str

    def names_same_people(self, other: Naming) -> bool:
        """Whether equal names are the same people, as far as the namings tell: C-NMC's, or one source read alike."""
        return self == other or self.subjects_from == other.subjects_from == CNMC_NAMING


@dataclass(frozen=True, eq=False, slots=True)
class SeenSource:
    """Samples of one source that weights have seen; all keys are sorted and unique, of shape (k,), uint64.

    Attributes
    ----------
    naming
        Whose names the subjects are.
    trained_images, trained_subjects
        Keys of what the weights were trained on.
    chosen_images, chosen_subjects
        Keys of what chose among weights: the best epoch, when to stop.
    rows
        Keys of ids with their subjects, where the images' digests are not known.
    trained_looks, chosen_looks
        The different looks of the images, of shape (k, 64), int8; none where there are more than :data:`MAX_LOOKS`.
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
        One entry a source.
    is_complete
        False where some of it is not known, as of weights from elsewhere.
    """

    sources: tuple[SeenSource, ...] = ()
    is_complete: bool = True


NOTHING_SEEN = SeenSamples()
UNKNOWN_ORIGIN = SeenSamples(is_complete=False)


@dataclass(frozen=True, slots=True)
class SeenBefore:
    """Where a split meets what the weights that a training starts from have seen.

    Attributes
    ----------
    subjects
        Validation and test subjects that the weights were trained on, and test subjects that they were chosen by.
    images
        Validation and test images that the weights were trained on, and test images that they were chosen by.
    num_samples
        All validation and test samples of these subjects and images.
    is_known
        Whether all that the weights have seen is known.
    namesakes
        Validation and test subjects that bear the name of one the weights were trained on, in a source that nothing
        connects with this one.
    """

    subjects: int = 0
    images: int = 0
    num_samples: int = 0
    is_known: bool = True
    namesakes: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SeenBefore:
        """Return what ``dataclasses.asdict`` gave, after a way through JSON.

        Raises
        ------
        TypeError, ValueError
            If it is something else.
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
    """Return what a training on this split sees: it trains on ``train`` and chooses by ``valid``.

    Parameters
    ----------
    table
        The n samples of a cache.
    codes
        Of shape (n,): position in :data:`~leukemia_data.splitting.split_spec.SPLIT_NAMES`, or UNUSED.
    naming
        Whose names the subjects are.
    """
    images, subjects = image_keys(table.pixel_digests), subject_keys(table.subjects.tolist())
    is_known = table.subjects != b""
    source = SeenSource(
        naming,
        trained_images=np.unique(images[codes == _TRAIN]),
        trained_subjects=np.unique(subjects[(codes == _TRAIN) & is_known]),
        chosen_images=np.unique(images[codes == _VALID]),
        chosen_subjects=np.unique(subjects[(codes == _VALID) & is_known]),
        trained_looks=_different_looks(table.looks[codes == _TRAIN]),
        chosen_looks=_different_looks(table.looks[codes == _VALID]),
    )
    return SeenSamples((source,))


def joined(first: SeenSamples, second: SeenSamples) -> SeenSamples:
    """Return what weights have seen that saw one after the other."""
    sources = {source.naming: source for source in first.sources}
    for source in second.sources:
        earlier = sources.get(source.naming)
        sources[source.naming] = source if earlier is None else _united(earlier, source)
    return SeenSamples(tuple(sources.values()), first.is_complete and second.is_complete)


def without_looks(seen: SeenSamples) -> SeenSamples:
    """Return the same with images known by their digests alone, so that near-identical ones are not looked for."""
    columns: dict[str, Any] = dict.fromkeys(LOOK_COLUMNS, _NO_LOOKS)
    return replace(seen, sources=tuple(replace(source, **columns) for source in seen.sources))


def _united(one: SeenSource, other: SeenSource) -> SeenSource:
    joined_columns = {name: np.concatenate((getattr(one, name), getattr(other, name))) for name in COLUMNS}
    columns: dict[str, Any] = {
        name: _different_looks(column) if name in LOOK_COLUMNS else np.unique(column)
        for name, column in joined_columns.items()
    }
    return SeenSource(one.naming, **columns)


def _different_looks(looks_N64: Looks) -> Looks:
    """Different looks in an order of their own; none where they are too many."""
    different = np.unique(looks_N64[looks_N64.any(axis=1)], axis=0)
    return different if len(different) <= MAX_LOOKS else _NO_LOOKS


def meets(seen: SeenSamples, table: SampleTable, codes: SplitCodes, naming: Naming) -> SeenBefore:
    """Find the validation and test samples of a split that weights have seen.

    A sample has been seen if its image has, or if its subject has: a subject that has a seen image, that is tied to
    such a one by identical images, or that bears a seen name. Names count where both sources name the same people (see
    :meth:`Naming.names_same_people`), or where the two share an image; elsewhere they are namesakes. What weights were
    trained on must be in neither part; what they were chosen by may choose again, and must not be tested on.

    Parameters
    ----------
    seen
        What the weights have seen.
    table
        The n samples of the cache to be split.
    codes
        Of shape (n,): position in :data:`~leukemia_data.splitting.split_spec.SPLIT_NAMES`, or UNUSED.
    naming
        Whose names the subjects are.
    """
    if not seen.sources:
        return SeenBefore(is_known=seen.is_complete)
    images, subjects, groups = (
        image_keys(table.pixel_digests),
        subject_keys(table.subjects.tolist()),
        linked_groups(table),
    )
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
    """Tell which images are identical or near-identical to one that weights were trained on or chosen by.

    Parameters
    ----------
    seen
        What the weights have seen.
    looks_N64 : ndarray of shape (N, 64), int8
        From :func:`leukemia_data.decoding.look.image_look`.
    """
    columns = [getattr(source, name) for source in seen.sources for name in LOOK_COLUMNS]
    return near_rows(np.concatenate([_NO_LOOKS, *columns]), looks_N64)


def _same_image(table: SampleTable, is_seen_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Extend samples by all that count as the same image: identical and near-identical ones."""
    codes = shown_codes(table)
    return np.isin(codes, codes[is_seen_N])


def _shares_samples(source: SeenSource, table: SampleTable, images: Keys) -> bool:
    """Whether some image of the source is in the table, or, where its images are not known, an id with its subject."""
    known = np.concatenate((source.trained_images, source.chosen_images))
    if np.isin(images, known).any():
        return True
    return bool(len(source.rows)) and bool(
        np.isin(row_keys(table.ids.tolist(), table.subjects.tolist()), source.rows).any()
    )


def _num_subjects(table: SampleTable, chosen: NDArray[np.bool_]) -> int:
    return len(np.unique(text_codes(table.subjects)[chosen & (table.subjects != b"")]))


def image_keys(digests: NDArray[np.uint8]) -> Keys:
    """Keys of images by their pixel digests (n, 16): the first 8 bytes, shape (n,)."""
    return np.ascontiguousarray(digests[:, :_KEY_BYTES]).view("<u8").reshape(len(digests)).astype(np.uint64)


def subject_keys(subjects: Sequence[bytes]) -> Keys:
    """Keys of n subjects' names in UTF-8, shape (n,)."""
    return _text_keys(subjects)


def row_keys(ids: Sequence[bytes], subjects: Sequence[bytes]) -> Keys:
    """Keys of n ids with their subjects, both in UTF-8, shape (n,)."""
    return _text_keys([b"\0".join(pair) for pair in zip(ids, subjects, strict=True)])


def _text_keys(texts: Sequence[bytes]) -> Keys:
    key_of = {text: int.from_bytes(bytes_digest(text)[:_KEY_BYTES], "little") for text in set(texts)}
    return np.array([key_of[text] for text in texts], np.uint64)
