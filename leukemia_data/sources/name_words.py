"""Names of folders, tables, columns and subjects: their usual meaning, and spellings of one name."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from leukemia_data.records.record import GIVEN_SPLITS

_WORDS: Mapping[str, Mapping[str, Any]] = tomllib.loads(
    Path(__file__).with_name("words.toml").read_text(encoding="utf-8")
)


def words_of(section: str, name: str) -> frozenset[str]:
    """Return the words of one meaning, a text in a section of ``words.toml``."""
    return frozenset(_WORDS[section][name].split())


_SPLIT_OF = {word: split for split in GIVEN_SPLITS for word in words_of("splits", split)}
_LATIN_SPLITS = "|".join(sorted((word for word in _SPLIT_OF if word[0] < "\u0400"), key=len, reverse=True))
_SPLIT_TOKEN = re.compile(
    rf"[dxy]?({_LATIN_SPLITS})(?:s?(?:sets?|data|daten|datensatz|menge|satz|split|images?|imgs|part|folder|s|[a-f]))?"
)
_OTHER_SPLITS = re.compile("|".join(word for word in _SPLIT_OF if word[0] >= "\u0400"))
_NEUTRAL = words_of("splits", "neutral")
_CONTAINERS, _VARIANTS = words_of("folders", "containers"), words_of("folders", "variants")
_MASKS, _THUMBNAILS = words_of("folders", "masks"), words_of("folders", "thumbnails")
_LEFTOVERS = words_of("folders", "leftovers")
_SYSTEM = words_of("folders", "system") | {"system volume information"}
_SYSTEM_STARTS = frozenset(letter for name in _SYSTEM for letter in (name[0], name[0].upper()))
_UNKNOWN = words_of("cells", "unknown") | frozenset(_WORDS["cells"]["unknown_phrases"])
_CELL_CLASSES = words_of("cells", "classes")
_PERSON = re.compile(
    r"(?:patients?|patienten?|patientin|pat|subjects?|subj|sub|cases?|donors?|persons?|individuals?|participants?|volunteers?"
    r"|uid|pid|pazient[ei]|pacientes?|proband(?:en|in)?|sujets?|sujetos?|hastalar?|患者|病人|被试|受试者|症例)"
    r"[ _.#-]*(?:id|no|nr)?[ _.#-]*[a-z]?[ _-]?\d{1,9}[a-z]?|[ph][ _-]?\d{1,6}"
)
_NUMBERED = re.compile(
    r"(?:[a-z]{1,3}|slides?|images?|img|photos?|fields?|batch|sites?|cent(?:er|re)|hospital|scanner|camera|sample|smear|"
    r"series|roi|tile|patch|run|day|week|session|group|folder|dir|part|set|plate|well|objekttr(?:ä|ae)ger|lame|vetrino)?"
    r"[ _.#-]*\d{1,9}(?:[ _.-]\d{1,9})*"
)
_SHORT_CODE = re.compile(r"[a-z]{1,2}[ _-]?\d{1,3}")
_MAGNIFICATION = re.compile(r"\d{1,4}x|x\d{1,4}")
_TOKENS = re.compile("A+(?!a)|A?a+|0+")
"""Words and numbers in a name's shape, see :func:`_kind`."""


def plain(name: str) -> str:
    """Return a name for comparisons: composed (NFC), without case and surrounding blanks.

    >>> plain("Cafe\u0301 ") == plain("CAF\u00c9")
    True
    """
    return unicodedata.normalize("NFC", name).strip().casefold()


def squeezed(name: str) -> str:
    """Return the letters and digits of a plain name: ``Ground Truth`` and ``ground_truth`` are one word."""
    return "".join(character for character in plain(name) if character.isalnum())


@lru_cache(maxsize=4096)
def tokens(name: str) -> tuple[str, ...]:
    """Return the words and numbers of a name, plain; camel case, digits and non-letters separate them.

    >>> tokens("TestA"), tokens("C-NMC_training_data"), tokens("resnet_18_test")
    (('test', 'a'), ('c', 'nmc', 'training', 'data'), ('resnet', '18', 'test'))
    """
    composed = unicodedata.normalize("NFC", name)
    shape = "".join(map(_kind, composed))
    # casefold keeps the dot of the Turkish capital as a separate character.
    return tuple(
        composed[match.start() : match.end()].replace("İ", "i").casefold() for match in _TOKENS.finditer(shape)
    )


def _kind(character: str) -> str:
    """``A`` for a capital letter of any alphabet, ``a`` for another letter, ``0`` for a digit, else a blank."""
    if character.isdecimal():
        return "0"
    return "A" if character.isupper() else "a" if character.isalpha() else " "


@lru_cache(maxsize=4096)
def splits_in(name: str) -> tuple[str, ...]:
    """Return the splits that a name mentions, each once, in order; usually one or none.

    >>> splits_in("TestB"), splits_in("train_val_test"), splits_in("latest")
    (('test',), ('train', 'valid', 'test'), ())
    """
    words = tokens(name)
    found = [split for word in words if (split := _split_of_token(word))]
    if not found:
        # "hold out" is one word in two tokens.
        found = [split for pair in pairwise(words) if (split := _split_of_token("".join(pair)))]
    return tuple(dict.fromkeys(found))


def _split_of_token(token: str) -> str | None:
    match = _SPLIT_TOKEN.fullmatch(token)
    if match is not None:
        return _SPLIT_OF[match[1]]
    other = _OTHER_SPLITS.match(token)
    return None if other is None else _SPLIT_OF[other[0]]


def split_word(name: str) -> str | None:
    """Return the split that a name mentions; ``None`` if there is none, or several.

    >>> split_word("C-NMC_training_data"), split_word("resnet_18_test"), split_word("all"), split_word("train_test")
    ('train', 'test', None, None)
    """
    found = splits_in(name)
    return found[0] if len(found) == 1 else None


@lru_cache(maxsize=4096)
def beside_the_split(name: str) -> tuple[str, ...]:
    """Return the words of a name that are neither a split nor usual beside one: ``positive`` of ``test_positive``."""
    return tuple(
        word
        for word in tokens(name)
        if not _split_of_token(word) and word not in _NEUTRAL and not word.isdigit() and len(word) > 1
    )


def means_eval(name: str) -> bool:
    """Return whether a name has a word that means test to some and validation to others."""
    return any(word.startswith("eval") for word in tokens(name))


def is_container(name: str) -> bool:
    """Return whether a folder's name means just that it holds images."""
    return squeezed(name) in _CONTAINERS


def is_variant(name: str) -> bool:
    """Return whether a folder's name is that of a treatment: ``Segmented``, ``rotated_90``, ``40x``."""
    if _MAGNIFICATION.fullmatch(squeezed(name)):
        return True
    words = [word for word in tokens(name) if not word.isdigit() and word not in _NEUTRAL]
    return bool(words) and all(word in _VARIANTS for word in words)


def is_mask(name: str) -> bool:
    """Return whether a folder's name means masks or annotations."""
    return squeezed(name) in _MASKS


def is_leftover(name: str) -> bool:
    """Return whether a folder's name means copies, drafts, results or discarded files: ``backup``, ``New folder``."""
    return any(word in _LEFTOVERS for word in tokens(name)) or squeezed(name) in _LEFTOVERS


def is_thumbnails(name: str) -> bool:
    """Return whether a folder's name means thumbnails."""
    return squeezed(name) in _THUMBNAILS


def is_system(name: str) -> bool:
    """Return whether an entry of this name belongs to an operating system, a disk or an archive."""
    # The first letter decides for nearly every file.
    return name[:1] in _SYSTEM_STARTS and name.casefold() in _SYSTEM


def is_unknown(text: str) -> bool:
    """Return whether a text means an unknown value: empty, ``NA``, ``nan``, ``None``, ``?``, ...

    >>> [text for text in ("", "NA", "nan", "?", "unknown", "hem", "0") if is_unknown(text)]
    ['', 'NA', 'nan', '?', 'unknown']
    """
    return not text or plain(text) in _UNKNOWN


def is_cell_class(name: str) -> bool:
    """Return whether a name has a word that usually names a class of blood cells or a diagnosis."""
    return any(word in _CELL_CLASSES or word.removesuffix("s") in _CELL_CLASSES for word in tokens(name))


def is_person(name: str) -> bool:
    """Return whether a name has a known form of a person's: ``patient_03``, ``P12``, ``case 7``."""
    return _PERSON.fullmatch(plain(name)) is not None


def is_short_code(name: str) -> bool:
    """Return whether a name is one or two letters and a number, such as ``P3`` or ``L1``: a person, slide, or class."""
    return _SHORT_CODE.fullmatch(plain(name)) is not None


def is_numbered(name: str) -> bool:
    """Return whether a name is a number, maybe after a general word: ``3``, ``slide_12``, ``2021-03-04``."""
    return _NUMBERED.fullmatch(plain(name)) is not None


def same_plain(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of different names that differ only in case."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(plain(name), []).append(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def are_numbers(names: Sequence[str]) -> bool:
    """Return whether all names are whole numbers."""
    return bool(names) and all(name.isascii() and name.isdecimal() for name in names)


_POINT_ZERO = re.compile(r"(?<=\d)\.0*\Z")
_RUN = re.compile(r"[^\W\d_]+|\d+")
_NUMBER = re.compile(r"([0-9]+)(?:\.0*)?")


def alike_subjects(subjects: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of different subjects that may be one person.

    They differ only in case, separators, leading zeros and a last ``.0``. ``1`` and ``H1`` are different, and so are
    ``1_2`` and ``12``. Empty subjects are ignored. Groups are sorted, and in the order of their first subjects.

    >>> alike_subjects(["P1", "p_01", "H1", "1", "1.0"])
    [('1', '1.0'), ('P1', 'p_01')]
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for subject in sorted(set(subjects) - {""}):
        groups.setdefault(_key(subject), []).append(subject)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _key(subject: str) -> tuple[str, ...]:
    """Letters joined, and each run of digits without leading zeros."""
    text = unicodedata.normalize("NFKC", subject).casefold().strip()
    parts: list[str] = []
    for run in _RUN.findall(_POINT_ZERO.sub("", text)):
        is_number = run[0].isdecimal()
        if not is_number and parts and not parts[-1][0].isdecimal():
            parts[-1] += run
        else:
            parts.append(run.lstrip("0") or "0" if is_number else run)
    return tuple(parts) or (text,)


def subjects_as_numbers(subjects: Sequence[str], unknown: Iterable[str] = ()) -> list[str]:
    """Return a table's subjects; if all but `unknown` ones are whole numbers, without a ``.0`` at their end."""
    known = set(subjects) - {"", *unknown}
    number_of = {subject: match[1] for subject in known if (match := _NUMBER.fullmatch(subject))}
    return [number_of.get(subject, subject) for subject in subjects] if len(number_of) == len(known) else list(subjects)
