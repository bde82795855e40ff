"""What a reader answers: images with class, subject and split, or a refusal with the readings that it offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ReadImage:
    """One image as it was read; empty texts where the reading knows nothing.

    Attributes
    ----------
    location
        Absolute path with links as they were given.
    """

    location: str
    class_name: str
    subject: str
    split: str
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the reader said: images and classes, or a refusal.

    Attributes
    ----------
    images, classes
        What was read; no classes where it was refused.
    refusal
        The message of the refusal, None if there is none.
    readings
        Text and options of the readings that a refusal offers.
    text
        The reading in words, as far as there is one.
    """

    images: tuple[ReadImage, ...] = ()
    classes: tuple[str, ...] = ()
    refusal: str | None = None
    readings: tuple[tuple[str, Any], ...] = ()
    text: str = ""
