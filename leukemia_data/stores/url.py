"""Addresses of objects: ``s3://bucket/folder/name`` as a value that keeps every character and has no credentials."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import total_ordering
from pathlib import Path
from typing import Self

from leukemia_data.errors import UsageError

# One letter before the colon is a Windows drive.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# Their text before an @ is a container, not a user.
_CONTAINER_SCHEMES = frozenset({"abfs", "abfss"})
_DRIVE = re.compile(r"/[A-Za-z]:")
_LOCAL = frozenset({"file", "local"})
_WITHOUT_HOST = _LOCAL | {"memory"}


@total_ordering
@dataclass(frozen=True, slots=True)
class Url:
    """The address of a folder or an object: a scheme in lower case, and a path that does not end with a slash."""

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __lt__(self, other: Url) -> bool:
        return str(self) < str(other)

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.scheme, f"{self.path}/{name}" if self.path.strip("/") else f"{self.path}{name}")

    @property
    def name(self) -> str:
        """The last part: the object's or bucket's name."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def parent(self) -> Self:
        """The folder around it; a bucket is its own parent."""
        folder, slash, _ = self.path.rpartition("/")
        return type(self)(self.scheme, folder) if slash and folder else self

    @property
    def bucket(self) -> Self:
        """The outermost folder: the bucket or container."""
        return type(self)(self.scheme, self.path.split("/", 1)[0])

    @property
    def key(self) -> str:
        """An object's name in its bucket; empty for the bucket itself."""
        return self.path.partition("/")[2]

    @property
    def suffix(self) -> str:
        """The name's end from its last dot on, like ``.bmp``, or nothing."""
        stem, dot, end = self.name.rpartition(".")
        return f".{end}" if dot and stem and end else ""

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name.removesuffix(self.suffix)


Location = Path | Url
"""Place of a file: a local path, or an address in a store."""


def is_url(text: str) -> bool:
    r"""Return whether a text is an address; a Windows drive is none.

    >>> is_url("s3://bucket/cells"), is_url("C:\\cells"), is_url("cells/train")
    (True, False, False)
    """
    return _SCHEME.match(text) is not None


def parse_url(text: str) -> Url:
    """Parse an address.

    >>> parse_url("s3://bucket/cells/") / "fold_0" / "1.bmp"
    Url(scheme='s3', path='bucket/cells/fold_0/1.bmp')

    Raises
    ------
    UsageError
        If it is no address, names no bucket, or holds credentials or a query; the message repeats none of them.
    """
    match = _SCHEME.match(text)
    if match is None:
        raise UsageError(f"{text} is no address: it needs a scheme like s3://")
    scheme = match[1].lower()
    rest = text[match.end() :]
    host = rest.split("/", 1)[0]
    if "@" in host and (scheme not in _CONTAINER_SCHEMES or ":" in host):
        raise UsageError(
            f"an address must not hold credentials ({scheme}://...@{host.rsplit('@', 1)[1]}): give them the way the "
            "store's library takes them, as by AWS_PROFILE"
        )
    if "?" in rest or "#" in rest:
        shown = re.split("[?#]", rest)[0]
        raise UsageError(f"an address must not hold a query or a fragment: give {scheme}://{shown}")
    if not host and scheme not in _WITHOUT_HOST:
        raise UsageError(f"{scheme}:// names no bucket")
    path = rest.rstrip("/")
    if scheme == "memory":
        path = path.lstrip("/")
    return Url(scheme, path or "/" * (scheme in _LOCAL))


def parse_location(text: str) -> Location:
    """Parse an address or a local path, which ``file://`` is too."""
    if not is_url(text):
        return Path(text)
    url = parse_url(text)
    if url.scheme not in _LOCAL:
        return url
    # file:///C:/cells names a drive.
    return Path(url.path[1:] if os.name == "nt" and _DRIVE.match(url.path) else url.path)
