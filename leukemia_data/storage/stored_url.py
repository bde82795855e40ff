"""Addresses that can be read: what a source's records hold where the images lie in a store.

They pickle as addresses, and whoever reads one in another process opens connections of its own there. Only who is given
an address loads this module, because fsspec takes as long to load as all of a build with nothing to do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache

from leukemia_data.storage.object_store import ObjectStore, StoredObject, open_store
from leukemia_data.storage.url import Url

# What the libraries find servers and credentials by.
_SETTINGS = ("AWS_", "AZURE_", "FSSPEC_", "GCSFS_", "GOOGLE_", "STORAGE_")
# Threads that begin together must not open a store each: that takes half a second of computing.
_OPENING = threading.Lock()


class StoredUrl(Url):
    """The address of a folder or an object, with what can be done there. Errors are those of ObjectStore."""

    __slots__ = ()

    def read_bytes(self) -> bytes:
        """The whole object."""
        return self._bucket_store.read(self.key)

    def state(self) -> StoredObject | None:
        """Size and modification time of the object; None if there is none."""
        return self._bucket_store.stat(self.key)

    def walk(self) -> Iterator[tuple[str, StoredObject]]:
        """Names below this folder, at any depth, and their states: by listing, without touching an object."""
        skipped = len(self.key) + 1 if self.key else 0
        for name, state in self._bucket_store.iterate(self.key):
            yield name[skipped:], state

    @property
    def store(self) -> ObjectStore:
        """The folder's objects, by connections that all who use this in the process share."""
        return self._bucket_store.below(self.key) if self.key else self._bucket_store

    @property
    def _bucket_store(self) -> ObjectStore:
        with _OPENING:
            return _shared_store(Url(self.scheme, self.bucket.path), _settings(os.environ))


def stored_url(url: Url) -> StoredUrl:
    """The same address, to be read."""
    return StoredUrl(url.scheme, url.path)


def _settings(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(item for item in environment.items() if item[0].startswith(_SETTINGS))


@lru_cache(maxsize=4)
def _shared_store(bucket: Url, settings: tuple[tuple[str, str], ...]) -> ObjectStore:
    """One store for all objects of a bucket, as long as the process's settings stay the same."""
    return open_store(bucket)
