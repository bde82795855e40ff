"""Check a cache in an object store byte by byte: each shard is fetched, checked and let go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from leukemia_data.caches.manifest import MANIFEST_NAME
from leukemia_data.caches.verify import VerifyReport, verify_cache
from leukemia_data.remote.remote_cache import read_manifest
from leukemia_data.storage.faults import MissingObjectError
from leukemia_data.storage.object_store import ObjectStore


def verify_stored_cache(store: ObjectStore, *, num_threads: int, progress: Callable[[int], None]) -> VerifyReport:
    """Check every object of a cache, as :func:`leukemia_data.caches.verify.verify_cache` checks files.

    Needs room for `num_threads` shards and the index in the system's folder for temporary files.

    Raises
    ------
    CacheError
        If there is no readable manifest.
    StorageError
        If the store cannot be read.
    """
    manifest = read_manifest(store)
    with TemporaryDirectory(prefix="ldata-verify-") as scratch:
        directory = Path(scratch)

        @contextmanager
        def fetched(name: str) -> Iterator[None]:
            # What is missing is told by the check itself.
            with suppress(MissingObjectError):
                store.download(name, directory / name)
            try:
                yield
            finally:
                (directory / name).unlink(missing_ok=True)

        store.download(MANIFEST_NAME, directory / MANIFEST_NAME)
        with fetched(manifest.index.name):
            report = verify_cache(directory, num_threads=num_threads, progress=progress, holding=fetched)
    return replace(report, directory=store.url)
