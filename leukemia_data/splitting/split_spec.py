"""Names of splits: parsed to a :class:`SplitSpec`, and written again.

::

    subject              whole subjects: 75 / 15 / 10 % of each class's images train, validate and test
    fold:K/N             part K of N validates, the rest trains (whole subjects)
    test-fold:K/N        the same parts for the same seed, but part K is held out as test
    official:K           fold K of the source is test, its other folds train
    leave-out:NAME,NAME  the named subjects, and those tied to them by identical pixels, are test; the rest trains
    image                75 / 15 / 10 % by image: patient-mixed
    given                the splits of the source

``test-fold``, ``official`` and ``leave-out`` have no validation part. With ``+valid`` at their end, as in
``official:0+valid``, about 15 % of the training images, by whole subjects of each class, validate. ``+valid:0.2``
takes another fraction. ``given+valid:0.15`` does the same for a source with training and test images only; images of
unknown subjects are then drawn singly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError
from leukemia_data.records.fingerprint import lines_digest

SPLIT_NAMES = ("train", "valid", "test")
UNUSED = len(SPLIT_NAMES)
"""Code of samples in no split: those without a label, unless the source gives them a split."""

SplitCodes = NDArray[np.int8]
"""Per sample: position in SPLIT_NAMES, or UNUSED."""

SplitKind = Literal["given", "subject", "image", "fold", "test-fold", "official", "leave-out"]
SPLIT_FORMS = "subject, given, image, fold:K/N, test-fold:K/N, official:K or leave-out:SUBJECT,SUBJECT"
DEFAULT_SPLIT = "subject"
"""The split of a training by default."""
WITH_VALID = "+valid"
VALID_SHARE = 0.15
"""Fraction of the training images that ``+valid`` uses for validation by default."""
MAX_VALID_SHARE = 0.5
HELD_OUT_KINDS = ("test-fold", "official", "leave-out")
"""Kinds that hold a part out as ``test`` and may draw a validation part from the rest."""
_DRAWING_KINDS = (*HELD_OUT_KINDS, "given")

_FOLD_SPEC = re.compile(r"(fold|test-fold):([0-9]+)/([0-9]+)")
_OFFICIAL_SPEC = re.compile(r"official:([0-9]{1,4})")
_ENDING = re.compile(r"(.*)\+valid(?::(.*))?", re.DOTALL)
_FRACTION = re.compile(r"(?=.)[0-9]?(\.[0-9]{0,6})?")
_LEAVE_OUT = "leave-out:"
_ESCAPED = {"%": "%25", ",": "%2C", "+": "%2B"}
_LONGEST_FILE_NAME = 60
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """A split as the user names it.

    Attributes
    ----------
    kind
        One of the list above.
    fold
        K of ``fold``, ``test-fold`` (from 1) and ``official`` (the source's own number).
    num_folds
        N of ``fold`` and ``test-fold``.
    subjects
        Of ``leave-out``, as in the sample table.
    with_valid
        Whether a held-out or given split draws a validation part from its training images.
    valid_share
        The wanted fraction of that part, in (0, 0.5].
    """

    kind: SplitKind
    fold: int = 0
    num_folds: int = 0
    subjects: tuple[str, ...] = ()
    with_valid: bool = False
    valid_share: float = VALID_SHARE

    def __str__(self) -> str:
        """The text that :func:`parse_split` reads."""
        text: str = self.kind
        if self.num_folds:
            text = f"{self.kind}:{self.fold}/{self.num_folds}"
        elif self.kind == "official":
            text = f"official:{self.fold}"
        elif self.kind == "leave-out":
            text = f"{_LEAVE_OUT}{','.join(map(_escaped, self.subjects))}"
        if not self.with_valid:
            return text
        is_default = self.holds_out and self.valid_share == VALID_SHARE
        return f"{text}{WITH_VALID}" + ("" if is_default else f":{f'{self.valid_share:.6f}'.rstrip('0')}")

    @property
    def is_drawn(self) -> bool:
        """Whether a seed chooses among equally good splits."""
        return self.with_valid or self.kind in ("subject", "image", "fold", "test-fold")

    @property
    def holds_out(self) -> bool:
        """Whether ``test`` is held out, and nothing may be chosen by the evaluated part."""
        return self.kind in HELD_OUT_KINDS

    @property
    def file_name(self) -> str:
        """The split's name as part of a file's: short, with characters that every file system allows.

        >>> SplitSpec("test-fold", 1, 5, with_valid=True).file_name
        'test-fold1of5-valid'
        """
        name = str(self).replace("/", "of").replace(_LEAVE_OUT, "leave-out-").replace(":", "")
        safe = _NOT_IN_FILE_NAMES.sub("-", name)
        if len(safe) <= _LONGEST_FILE_NAME:
            return safe
        # Long lists of subjects may have the same start: a digest replaces the rest.
        return f"{safe[: _LONGEST_FILE_NAME - 9]}-{lines_digest([str(self)])[:8]}"


def parse_split(text: str) -> SplitSpec:
    """Parse a split's name.

    Raises
    ------
    UsageError
        If it has none of the forms above; folds need 1 <= K <= N and N >= 2, fractions must be in (0, 0.5].
    """
    ending = _ENDING.fullmatch(text)
    if ending is None:
        return _parse_form(text, text)
    fraction = VALID_SHARE if ending.group(2) is None else _parse_fraction(ending.group(2), text)
    return with_valid_share(_parse_form(ending.group(1), text), fraction)


def with_valid_share(spec: SplitSpec, fraction: float) -> SplitSpec:
    """Return the split with a validation part drawn from its training images.

    Parameters
    ----------
    spec
        A held-out split or ``given``.
    fraction
        Wanted fraction of each class's training images, in (0, 0.5].

    Raises
    ------
    UsageError
        If the split has a validation part or another fraction already, or the fraction is out of range.
    """
    fraction = round(fraction, 6)
    if not 0 < fraction <= MAX_VALID_SHARE:
        raise UsageError(f"split {spec}: the fraction that validates must be above 0 and at most {MAX_VALID_SHARE}")
    if spec.kind not in _DRAWING_KINDS:
        raise UsageError(
            f"split {spec}: a validation part is drawn from the training images of {', '.join(_DRAWING_KINDS)} only; "
            f"{spec.kind} has one already"
        )
    if spec.with_valid and spec.valid_share != fraction:
        raise UsageError(f"split {spec} uses a fraction of {spec.valid_share:g} for validation, not {fraction:g}")
    return replace(spec, with_valid=True, valid_share=fraction)


def _parse_fraction(fraction: str, text: str) -> float:
    if _FRACTION.fullmatch(fraction) is None or fraction == ".":
        raise UsageError(f"split {text!r}: write the fraction that validates as a number, such as {WITH_VALID}:0.15")
    return float(fraction)


def _parse_form(form: str, text: str) -> SplitSpec:
    match form:
        case "given" | "subject" | "image":
            return SplitSpec(form)
    if form.startswith(_LEAVE_OUT):
        return SplitSpec("leave-out", subjects=_parse_subjects(form.removeprefix(_LEAVE_OUT), text))
    if official := _OFFICIAL_SPEC.fullmatch(form):
        return SplitSpec("official", int(official.group(1)))
    fold = _FOLD_SPEC.fullmatch(form)
    if fold is None:
        raise UsageError(
            f"unknown split {text!r}: use {SPLIT_FORMS} (such as fold:1/5, official:0 or leave-out:H3,12); "
            f"the last three also with {WITH_VALID}, and given with {WITH_VALID}:0.15"
        )
    kind: SplitKind = "fold" if fold.group(1) == "fold" else "test-fold"
    number, num_folds = int(fold.group(2)), int(fold.group(3))
    if not (num_folds >= 2 and 1 <= number <= num_folds):
        raise UsageError(f"split {text!r}: folds count from 1 to N, and there are at least 2")
    return SplitSpec(kind, number, num_folds)


def _parse_subjects(names: str, text: str) -> tuple[str, ...]:
    """The subjects between commas; commas, plus and percent signs in names are written %2C, %2B, %25."""
    subjects = tuple(unquote(name.strip()) for name in names.split(","))
    if not all(subjects):
        raise UsageError(f"split {text!r}: name the subjects to leave out, with a comma between them: leave-out:H3,12")
    return tuple(dict.fromkeys(subjects))


def _escaped(subject: str) -> str:
    return "".join(_ESCAPED.get(sign, sign) for sign in subject)
