"""Copy caches between this machine and an object store: verified, resumable, in parallel.

The manifest is copied last, so that an incomplete copy is not a cache. Shards are named by their content: existing ones
are not sent again, and an interrupted copy resumes. Nothing is removed, so that readers of an older state keep working.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from leukemia_data.caches.local_copies import download_entry
from leukemia_data.caches.manifest import (
    MANIFEST_NAME,
    IndexEntry,
    Manifest,
    ShardEntry,
    cache_dir_name,
    find_manifest,
    is_intact,
    manifest_bytes,
    parse_manifest,
)
from leukemia_data.caches.opening import choose_cache, choose_folder
from leukemia_data.caches.remote_cache import read_manifest
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import CacheError, StorageError
from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.limits import free_disk_bytes
from leukemia_data.files.lock import lock_cache
from leukemia_data.records.fingerprint import blocks_digest
from leukemia_data.stores.faults import MissingObjectError
from leukemia_data.stores.object_store import ObjectStore, StoredObject, open_store
from leukemia_data.stores.url import Location, Url

Entry = ShardEntry | IndexEntry
_NAME_BREAKERS = frozenset('/\\:\0"*?<>|')


@dataclass(frozen=True, slots=True)
class CopyReport:
    """Files and bytes of a copied cache, in total and sent; without the manifest."""

    source: Location
    target: Location
    num_files: int
    num_bytes: int
    num_sent: int
    sent_bytes: int

    def to_dict(self) -> dict[str, object]:
        """Return everything as JSON values."""
        counts = {name: getattr(self, name) for name in ("num_files", "num_bytes", "num_sent", "sent_bytes")}
        return {"from": str(self.source), "to": str(self.target), **counts}


def cache_folder(manifest: Manifest) -> tuple[str, str]:
    """Return a cache's two folder names below a folder of caches: its name, and its size with fingerprint.

    Raises
    ------
    CacheError
        If its name is not a valid folder name: manifests are untrusted input.
    """
    name = manifest.name
    if name in ("", ".", "..") or not name.isprintable() or _NAME_BREAKERS & set(name):
        raise CacheError(f"the cache is named {name!r}, which is no name of a folder: it cannot be copied")
    return name, cache_dir_name(manifest.size_px, manifest.fingerprint)


def folder_of_cache(root: Location, manifest: Manifest) -> Location:
    """Return the location of a cache below a folder of caches; `root` itself if it is that already."""
    folders = cache_folder(manifest)
    if (root.parent.name, root.name) == folders:
        return root
    return root / folders[0] / folders[1]


def open_folder(location: Location) -> ObjectStore:
    """Return the store for a location, which may be a local folder."""
    return open_store(Url("file", location.absolute().as_posix()) if isinstance(location, Path) else location)


def push(
    location: Path,
    folder: Location,
    *,
    size_px: int | None = None,
    verify: bool = False,
    num_files: int = 4,
    console: Console = NULL_CONSOLE,
) -> CopyReport:
    """Copy a cache into a folder of caches in an object store, as ``NAME/SIZE-FINGERPRINT``.

    Parameters
    ----------
    location
        A cache, or a folder with caches of which one is of the size.
    folder
        The address of the folder of caches, or that of the cache itself in it. May be a folder of this machine.
    verify, num_files
        As `is_verify` and `num_threads` of :func:`push_cache`, whose errors are raised.
    """
    directory, manifest = choose_folder(location, "only a cache in a folder can be pushed", size_px=size_px)
    store = open_folder(folder_of_cache(folder, manifest))
    with console.progress(manifest.num_bytes, "pushing", unit="B") as bar:
        return push_cache(directory, store, num_threads=num_files, is_verify=verify, progress=bar.update)


def pull(
    location: Location,
    folder: Path,
    *,
    size_px: int | None = None,
    num_files: int = 4,
    console: Console = NULL_CONSOLE,
) -> CopyReport:
    """Copy a cache out of an object store into a folder of caches, as ``NAME/SIZE-FINGERPRINT``.

    Parameters
    ----------
    location
        The address of a cache, or of a folder of caches of which one is of the size. May be a folder of this machine.
    num_files
        As `num_threads` of :func:`pull_cache`, whose errors are raised.
    """
    store = open_folder(choose_cache(location, size_px=size_px).location)
    data = store.read(MANIFEST_NAME)
    manifest = parse_manifest(data, store.url / MANIFEST_NAME)
    target = folder.joinpath(*cache_folder(manifest))
    with console.progress(manifest.num_bytes, "pulling", unit="B") as bar:
        return pull_cache(store, data, target, num_threads=num_files, progress=bar.update)


def push_cache(
    directory: Path, store: ObjectStore, *, num_threads: int, is_verify: bool, progress: Callable[[int], object]
) -> CopyReport:
    """Copy the cache in a directory into its folder in an object store.

    Parameters
    ----------
    num_threads
        Files sent in parallel.
    is_verify
        Read back existing and sent files and compare digests, instead of names and sizes only.
    progress
        Called with numbers of bytes, including those of existing files.

    Raises
    ------
    CacheError
        If a file of the cache is damaged, or the target holds another cache.
    StorageError
        If the store cannot be written; ConflictError if another copy or build changed the manifest meanwhile.
    """
    data = manifest_bytes(directory)
    manifest = parse_manifest(data, directory / MANIFEST_NAME)
    previous = store.stat(MANIFEST_NAME)
    if previous is not None:
        _require_same_cache(manifest, partial(read_manifest, store), store.url)
    there = store.entries()

    def copy(entry: Entry) -> bool:
        is_there = _is_stored(store, entry, there.get(entry.name), is_verify)
        if is_there:
            progress(entry.num_bytes)
        else:
            _push_file(directory, store, entry, is_verify, progress)
        return not is_there

    sent = _copy_all(manifest, copy, num_threads)
    if previous is None or store.read(MANIFEST_NAME) != data:
        store.write_over(MANIFEST_NAME, data, previous)
    return _report(directory, store.url, manifest, sent)


def pull_cache(
    store: ObjectStore,
    data: bytes,
    directory: Path,
    *,
    num_threads: int,
    progress: Callable[[int], object],
) -> CopyReport:
    """Copy a cache out of an object store, and check every file's digest.

    Parameters
    ----------
    data
        Bytes of its manifest, which determines the copied state.
    directory
        Target directory; its lock is held meanwhile.
    num_threads, progress
        As for :func:`push_cache`.

    Raises
    ------
    CacheError
        If the target holds another cache, is locked, or has too little room.
    StorageError
        If the store cannot be read, or an object differs from the manifest.
    """
    manifest = parse_manifest(data, store.url / MANIFEST_NAME)
    with lock_cache(directory, "pull"):
        _require_same_cache(manifest, partial(find_manifest, directory), directory)
        here = {entry.name for entry in manifest.entries if is_intact(directory, entry)}
        _require_room(directory, [entry for entry in manifest.entries if entry.name not in here])

        def copy(entry: Entry) -> bool:
            if entry.name in here:
                progress(entry.num_bytes)
                return False
            download_entry(store, entry, directory, progress)
            return True

        sent = _copy_all(manifest, copy, num_threads)
        path = directory / MANIFEST_NAME
        if not path.is_file() or path.read_bytes() != data:
            with atomic_path(path) as new:
                new.write_bytes(data)
        return _report(store.url, directory, manifest, sent)


def _copy_all(manifest: Manifest, copy: Callable[[Entry], bool], num_threads: int) -> list[Entry]:
    """Copy all files, but none after a failure or an interruption; return those for which `copy` returned True."""
    pool = ThreadPoolExecutor(num_threads, "copy")
    try:
        copied = {pool.submit(copy, entry): entry for entry in manifest.entries}
        return [copied[done] for done in as_completed(copied) if done.result()]
    finally:
        pool.shutdown(cancel_futures=True)


def _report(source: Location, target: Location, manifest: Manifest, sent: Sequence[Entry]) -> CopyReport:
    sent_bytes = sum(entry.num_bytes for entry in sent)
    return CopyReport(source, target, len(manifest.entries), manifest.num_bytes, len(sent), sent_bytes)


def _push_file(
    directory: Path, store: ObjectStore, entry: Entry, is_verify: bool, progress: Callable[[int], object]
) -> None:
    path = directory / entry.name
    if not is_intact(directory, entry):
        raise CacheError(
            f"{path} is damaged or missing: `ldata verify {directory} --repair` repairs it; then run this command again"
        )
    store.upload(entry.name, path, progress)
    if is_verify and blocks_digest(store.blocks(entry.name, entry.num_bytes)) != entry.digest:
        raise StorageError(f"{store.url / entry.name}: other bytes arrived than were sent; run the same command again")


def _is_stored(store: ObjectStore, entry: Entry, found: StoredObject | None, is_verify: bool) -> bool:
    if found is None or found.num_bytes != entry.num_bytes:
        return False
    return not is_verify or blocks_digest(store.blocks(entry.name, entry.num_bytes)) == entry.digest


def _require_same_cache(manifest: Manifest, read: Callable[[], Manifest | None], where: object) -> None:
    """Raise CacheError if the target holds another cache; an unreadable manifest may be overwritten."""
    other = None
    with suppress(CacheError, MissingObjectError):
        other = read()
    if other is not None and other.fingerprint != manifest.fingerprint:
        raise CacheError(
            f"{where} holds another cache ({other.recipe.name}, {other.size_px} px, fingerprint "
            f"{other.fingerprint[:12]}): name another folder"
        )


def _require_room(directory: Path, entries: Sequence[Entry]) -> None:
    wanted, free = sum(entry.num_bytes for entry in entries), free_disk_bytes(directory)
    if free is not None and wanted > free:
        raise CacheError(f"{directory}: {wanted:,} bytes are to come, and {free:,} are free: make room or name another")
