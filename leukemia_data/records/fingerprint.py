"""Identity of caches, digests of bytes, and the OpenCV that is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import struct
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
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


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return the canonical bytes of a JSON value: sorted keys, no spaces, ASCII only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def cache_fingerprint(recipe: Recipe, size_px: int, opencv_version: str) -> str:
    """Return a cache's fingerprint (64 hexadecimal digits), which ignores the recipe's name and description."""
    description = {
        "fingerprint_version": FINGERPRINT_VERSION,
        "size_px": size_px,
        "steps": [step.to_dict() for step in recipe.steps],
        "opencv": opencv_version,
    }
    return hashlib.sha256(canonical_json(description)).hexdigest()


def installed_opencv_version() -> str:
    """Return OpenCV's release, such as ``5.0.0``, from its wheel's metadata if possible.

    Importing it takes 0.1 s, which a build with nothing to do avoids.
    """
    spec = importlib.util.find_spec("cv2")
    if spec is not None and spec.origin is not None:
        with suppress(OSError):
            text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
            if match := re.search(r'opencv_version\s*=\s*"(\d+\.\d+\.\d+)', text):
                return match[1]
    return str(importlib.import_module("cv2").__version__)


def bytes_digest(data: Any) -> bytes:  # noqa: ANN401 - any object with the buffer protocol
    """Return the XXH3-128 of a buffer, 16 bytes."""
    return xxhash.xxh3_128_digest(data)


def file_digest(path: Path) -> str:
    """Return the XXH3-128 of a file's bytes, 32 hexadecimal digits."""
    with path.open("rb") as file:
        return blocks_digest(iter(partial(file.read, _READ_BYTES), b""))


def blocks_digest(blocks: Iterable[bytes]) -> str:
    """Return the XXH3-128 of concatenated blocks, 32 hexadecimal digits."""
    hasher = xxhash.xxh3_128()
    for block in blocks:
        hasher.update(block)
    return hasher.hexdigest()


def lines_digest(lines: Iterable[str]) -> str:
    """Return the XXH3-128 of text lines in order, 32 hexadecimal digits."""
    remaining = iter(lines)
    # In large batches: the overhead of calls dominates.
    batches = iter(lambda: list(islice(remaining, _LINES_AT_ONCE)), [])
    return blocks_digest("\n".join([*batch, ""]).encode("utf-8", "surrogateescape") for batch in batches)


def records_digest(records: Iterable[Record], purpose: str = "") -> str:
    """Return the XXH3-128 of the metadata and file states of records in order, 32 hexadecimal digits.

    Paths do not count; different `purpose` values give different digests of equal records.
    """
    hasher = xxhash.xxh3_128(purpose.encode())
    remaining = iter(records)
    # Column by column: formatting a text for each of a million records would dominate.
    while block := list(islice(remaining, _LINES_AT_ONCE)):
        for name in ("record_id", "subject", "split"):
            hasher.update(repr(list(map(attrgetter(name), block))).encode())
        states = chain.from_iterable(map(attrgetter("state"), block))
        numbers = chain(map(attrgetter("label"), block), map(attrgetter("fold"), block), states)
        hasher.update(struct.pack(f"<{6 * len(block)}q", *numbers))
    return hasher.hexdigest()


DISTRIBUTIONS = [f"opencv{contrib}-python{headless}" for contrib in ("", "-contrib") for headless in ("", "-headless")]


def installed_opencv_distributions(path: Sequence[str] | None = None) -> list[str]:
    """Return names and versions of the installed OpenCV distributions on `path` or ``sys.path``."""
    folders = list(sys.path if path is None else path)
    found = {name: next(iter(distributions(name=name, path=folders)), None) for name in DISTRIBUTIONS}
    return [f"{name} {one.version}" for name, one in found.items() if one is not None]


def opencv_conflict(path: Sequence[str] | None = None) -> str | None:
    """Return a warning if several distributions of OpenCV are installed, else None."""
    found = installed_opencv_distributions(path)
    if len(found) < 2:
        return None
    return (
        f"several distributions of OpenCV are installed ({', '.join(found)}); they overwrite each other's files, so "
        "which one runs is chance: pip uninstall all of them, then pip install opencv-python-headless"
    )
