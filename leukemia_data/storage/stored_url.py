"""Addresses that can be read: what a source's records hold where the images lie in a store.

They pickle as addresses, and whoever reads one in another process opens connections of its own there. Only who is given
an address loads this module, because fsspec takes as long to load as all of a build with nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator

from leukemia_data.storage.object_store import ObjectStore, StoredObject, open_store
from leukemia_data.storage.url import Url


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
        """The folder's objects."""
        return open_store(Url(self.scheme, self.path))

    @property
    def _bucket_store(self) -> ObjectStore:
        return open_store(Url(self.scheme, self.bucket.path))


def stored_url(url: Url) -> StoredUrl:
    """The same address, to be read."""
    return StoredUrl(url.scheme, url.path)
