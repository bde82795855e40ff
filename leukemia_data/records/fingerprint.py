"""Identity of caches, digests of bytes, and the OpenCV that is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import struct
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import distributions
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from leukemia_data.operations.recipe import Recipe

if TYPE_CHECKING:
    from leukemia_data.records.record import Record


FINGERPRINT_VERSION = 1
DIGEST_BYTES = 16
LOOKS_VERSION = 1
"""Version of :mod:`leukemia_data.decoding.look`; looks of different versions cannot be compared."""
_READ_BYTES = 1 << 20
_LINES_AT_ONCE = 1 << 12
_TEXTS_OF_RECORDS = (attrgetter("record_id"), attrgetter("subject"), attrgetter("split"))


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """The one byte string that stands for a JSON value: sorted keys, no spaces, ASCII only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def cache_fingerprint(recipe: Recipe, size_px: int, opencv_version: str) -> str:
    """Fingerprint (64 hexadecimal digits) of the cache that `recipe` makes at `size_px`.

    A recipe's name and description are left out: they decide no pixel.
    """
    description = {
        "fingerprint_version": FINGERPRINT_VERSION,
        "size_px": size_px,
        "steps": [step.to_dict() for step in recipe.steps],
        "opencv": opencv_version,
    }
    return hashlib.sha256(canonical_json(description)).hexdigest()


def installed_opencv_version() -> str:
    """OpenCV's release, such as ``5.0.0``, without loading the library where its wheel tells.

    Loading it costs 0.1 s, which a build that finds nothing to do should not pay.
    """
    spec = importlib.util.find_spec("cv2")
    if spec is not None and spec.origin is not None:
        version_file = Path(spec.origin).with_name("version.py")
        if version_file.is_file():
            match = re.search(r'opencv_version\s*=\s*"(\d+\.\d+\.\d+)', version_file.read_text(encoding="utf-8"))
            if match is not None:
                return match.group(1)
    return str(importlib.import_module("cv2").__version__)


def bytes_digest(data: Any) -> bytes:  # noqa: ANN401 - any object with the buffer protocol
    """XXH3-128 of a buffer, 16 bytes."""
    return xxhash.xxh3_128_digest(data)


def file_digest(path: Path) -> str:
    """XXH3-128 of a file's bytes, 32 hexadecimal digits."""
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


def blocks_digest(blocks: Iterable[bytes]) -> str:
    """XXH3-128 of bytes that come one block after the other, 32 hexadecimal digits."""
    hasher = xxhash.xxh3_128()
    for block in blocks:
        hasher.update(block)
    return hasher.hexdigest()


def lines_digest(lines: Iterable[str]) -> str:
    """XXH3-128 of text lines in their order, 32 hexadecimal digits."""
    hasher = xxhash.xxh3_128()
    remaining = iter(lines)
    # Many at once: most of the time goes into calls.
    while block := list(islice(remaining, _LINES_AT_ONCE)):
        hasher.update("\n".join([*block, ""]).encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


def records_digest(records: Iterable[Record], purpose: str = "") -> str:
    """XXH3-128 of the metadata and the file states of records in their order, 32 hexadecimal digits.

    Their paths do not count; `purpose` keeps digests apart that shall differ for equal records.
    """
    hasher = xxhash.xxh3_128(purpose.encode())
    remaining = iter(records)
    # A column at once: a text for each of a million records takes longer than all the rest.
    while block := list(islice(remaining, _LINES_AT_ONCE)):
        for text_of in _TEXTS_OF_RECORDS:
            hasher.update(repr(list(map(text_of, block))).encode())
        states = chain.from_iterable(map(attrgetter("state"), block))
        numbers = chain(map(attrgetter("label"), block), map(attrgetter("fold"), block), states)
        hasher.update(struct.pack(f"<{6 * len(block)}q", *numbers))
    return hasher.hexdigest()


DISTRIBUTIONS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def installed_opencv_distributions(path: Sequence[str] | None = None) -> list[str]:
    """Names and versions of the installed distributions that hold OpenCV, looked for on `path` or ``sys.path``."""
    folders = list(sys.path if path is None else path)
    found = [next(iter(distributions(name=name, path=folders)), None) for name in DISTRIBUTIONS]
    return [f"{name} {one.version}" for name, one in zip(DISTRIBUTIONS, found, strict=True) if one is not None]


def opencv_conflict(path: Sequence[str] | None = None) -> str | None:
    """Return a warning if several distributions of OpenCV are installed, else None."""
    found = installed_opencv_distributions(path)
    if len(found) < 2:
        return None
    return (
        f"several distributions of OpenCV are installed ({', '.join(found)}); they overwrite each other's files, so "
        "which one runs is chance: pip uninstall all of them, then pip install opencv-python-headless"
    )
