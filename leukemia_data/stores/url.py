"""Addresses of objects: ``s3://bucket/folder/name`` as a value, next to ``pathlib.Path``.

A path object folds ``//`` to ``/`` and knows drives; an address must keep every character of an object's name. It never
holds credentials: those come the way the libraries take them, from the environment or their own files.
"""

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
# What stands before an @ is a container there, no user.
_CONTAINER_SCHEMES = frozenset({"abfs", "abfss"})
_DRIVE = re.compile(r"/[A-Za-z]:")
_LOCAL = frozenset({"file", "local"})
_WITHOUT_HOST = _LOCAL | {"memory"}


@total_ordering
@dataclass(frozen=True, slots=True)
class Url:
    """The address of a folder or an object; ``str()`` of it may be printed anywhere.

    Attributes
    ----------
    scheme
        What stands before ``://``, in lower case.
    path
        Everything behind it, without a slash at its end; never credentials or a query of the user's.
    """

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
        """The last part: an object's own name, or the bucket's."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def parent(self) -> Self:
        """The folder around it; a bucket is its own parent."""
        folder, slash, _ = self.path.rpartition("/")
        return type(self)(self.scheme, folder) if slash and folder else self

    @property
    def bucket(self) -> Self:
        """The outermost folder, which is a bucket or container where there is such a thing."""
        return type(self)(self.scheme, self.path.split("/", 1)[0])

    @property
    def key(self) -> str:
        """What follows the bucket: an object's name in it, with every character; empty for the bucket itself."""
        return self.path.partition("/")[2]

    @property
    def suffix(self) -> str:
        """The name's end from its last dot on, like ``.bmp``; empty where there is none."""
        stem, dot, end = self.name.rpartition(".")
        return f".{end}" if dot and stem and end else ""

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name.removesuffix(self.suffix)


Location = Path | Url
"""Where a file lies: on this machine's disks, or in a store."""


def is_url(text: str) -> bool:
    r"""Whether a text is written as an address; a Windows drive is none.

    >>> is_url("s3://bucket/cells"), is_url("C:\\cells"), is_url("cells/train")
    (True, False, False)
    """
    return _SCHEME.match(text) is not None


def parse_url(text: str) -> Url:
    """Read an address as a user writes it.

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
    """An address or a path of this machine, as a user writes it; ``file://`` is a path."""
    if not is_url(text):
        return Path(text)
    url = parse_url(text)
    if url.scheme not in _LOCAL:
        return url
    # file:///C:/cells names a drive.
    return Path(url.path[1:] if os.name == "nt" and _DRIVE.match(url.path) else url.path)
