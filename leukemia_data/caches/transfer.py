"""Copy caches between this machine and an object store: verified, resumable, in parallel.

The manifest is copied last, so that an incomplete copy is not a cache. Shards are named by their content: existing ones
are not sent again, and an interrupted copy resumes. Nothing is removed, so that readers of an older state keep working.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.caches.manifest import (
    MANIFEST_NAME,
    IndexEntry,
    Manifest,
    ShardEntry,
    cache_dir_name,
    find_manifest,
    parse_manifest,
)
from leukemia_data.caches.opening import choose_cache, choose_folder
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import CacheError, StorageError
from leukemia_data.files.atomic import atomic_path, scratch_path
from leukemia_data.files.limits import free_disk_bytes
from leukemia_data.files.lock import lock_cache
from leukemia_data.records.fingerprint import blocks_digest, file_digest
from leukemia_data.stores.faults import MissingObjectError
from leukemia_data.stores.object_store import ObjectStore, StoredObject, open_store
from leukemia_data.stores.url import Location, Url

Entry = ShardEntry | IndexEntry
Copy = Callable[[Entry], bool]
"""Copies one file; returns whether it had to be sent."""

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
    size_px
        Side of the images, to choose among several caches.
    verify, num_files
        As `is_verify` and `num_threads` of :func:`push_cache`, whose errors are raised.
    console
        Receives the progress.
    """
    directory, manifest = choose_folder(location, "what is copied into a store lies in a folder", size_px=size_px)
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
    folder
        The folder of caches.
    size_px
        Side of the images, to choose among several caches.
    num_files
        As `num_threads` of :func:`pull_cache`, whose errors are raised.
    console
        Receives the progress.
    """
    store = open_folder(choose_cache(location, size_px=size_px).location)
    data = store.read(MANIFEST_NAME)
    manifest = parse_manifest(data.decode("utf-8", "replace"), store.url / MANIFEST_NAME)
    target = folder.joinpath(*cache_folder(manifest))
    with console.progress(manifest.num_bytes, "pulling", unit="B") as bar:
        return pull_cache(store, data, target, num_threads=num_files, progress=bar.update)


def push_cache(
    directory: Path, store: ObjectStore, *, num_threads: int, is_verify: bool, progress: Callable[[int], object]
) -> CopyReport:
    """Copy a cache into an object store.

    Parameters
    ----------
    directory
        The cache.
    store
        Its folder there.
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
    data = _manifest_bytes(directory)
    manifest = parse_manifest(data.decode("utf-8"), directory / MANIFEST_NAME)
    previous = store.stat(MANIFEST_NAME)
    _require_same_cache(manifest, _remote_manifest(store) if previous is not None else None, str(store.url))
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
    store
        The cache's folder there.
    data
        Bytes of its manifest, which determines the copied state.
    directory
        Target directory; its lock is held meanwhile.
    num_threads
        Files downloaded in parallel.
    progress
        Called with numbers of bytes, including those of existing files.

    Raises
    ------
    CacheError
        If the target holds another cache, is locked, or has too little room.
    StorageError
        If the store cannot be read, or an object differs from the manifest.
    """
    manifest = parse_manifest(data.decode("utf-8", "replace"), store.url / MANIFEST_NAME)
    with lock_cache(directory, "pull"):
        _require_same_cache(manifest, _local_manifest(directory), str(directory))
        here = {entry.name for entry in _entries(manifest) if _is_here(directory, entry)}
        _require_room(directory, [entry for entry in _entries(manifest) if entry.name not in here])

        def copy(entry: Entry) -> bool:
            if entry.name in here:
                progress(entry.num_bytes)
                return False
            _pull_file(store, directory, entry, progress)
            return True

        sent = _copy_all(manifest, copy, num_threads)
        if not _has_bytes(directory / MANIFEST_NAME, data):
            with atomic_path(directory / MANIFEST_NAME) as partial:
                partial.write_bytes(data)
        return _report(store.url, directory, manifest, sent)


def _entries(manifest: Manifest) -> list[Entry]:
    return [*manifest.shards, manifest.index]


def _copy_all(manifest: Manifest, copy: Copy, num_threads: int) -> list[Entry]:
    """Copy all files; return those that had to be sent."""
    with _workers(num_threads) as pool:
        copied = {pool.submit(copy, entry): entry for entry in _entries(manifest)}
        return [copied[done] for done in as_completed(copied) if done.result()]


def _report(source: Location, target: Location, manifest: Manifest, sent: Sequence[Entry]) -> CopyReport:
    sent_bytes = sum(entry.num_bytes for entry in sent)
    return CopyReport(source, target, len(_entries(manifest)), manifest.num_bytes, len(sent), sent_bytes)


@contextmanager
def _workers(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    """A thread pool that starts no further file after a failure or an interruption."""
    pool = ThreadPoolExecutor(num_threads, "copy")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _push_file(
    directory: Path, store: ObjectStore, entry: Entry, is_verify: bool, progress: Callable[[int], object]
) -> None:
    path = directory / entry.name
    if not _is_here(directory, entry):
        raise CacheError(
            f"{path} is damaged or missing: `ldata verify {directory} --repair` repairs it; then run this command again"
        )
    store.upload(entry.name, path, progress)
    if is_verify and blocks_digest(store.blocks(entry.name, entry.num_bytes)) != entry.digest:
        raise StorageError(f"{store.url / entry.name}: other bytes arrived than were sent; run the same command again")


def _pull_file(store: ObjectStore, directory: Path, entry: Entry, progress: Callable[[int], object]) -> None:
    with scratch_path(directory, entry.name.partition("-")[0]) as arrived:
        store.download(entry.name, arrived, progress)
        digest = file_digest(arrived)
        if digest != entry.digest:
            progress(-arrived.stat().st_size)
            store.download(entry.name, arrived, progress)
            digest = file_digest(arrived)
        if digest != entry.digest:
            raise StorageError(
                f"{store.url / entry.name} is damaged: its digest is {digest}, the manifest says {entry.digest}; "
                "`ldata push --verify` from an intact copy of the cache repairs it"
            )
        arrived.replace(directory / entry.name)


def _is_stored(store: ObjectStore, entry: Entry, found: StoredObject | None, is_verify: bool) -> bool:
    if found is None or found.num_bytes != entry.num_bytes:
        return False
    return not is_verify or blocks_digest(store.blocks(entry.name, entry.num_bytes)) == entry.digest


def _is_here(directory: Path, entry: Entry) -> bool:
    path = directory / entry.name
    try:
        return path.stat().st_size == entry.num_bytes and file_digest(path) == entry.digest
    except FileNotFoundError:
        return False


def _manifest_bytes(directory: Path) -> bytes:
    try:
        return (directory / MANIFEST_NAME).read_bytes()
    except FileNotFoundError:
        raise CacheError(f"{directory} holds no {MANIFEST_NAME}: no cache, or a build that has not finished") from None


def _has_bytes(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def _remote_manifest(store: ObjectStore) -> Manifest | None:
    """The store's manifest, or None; an unreadable one may be overwritten."""
    try:
        return parse_manifest(store.read(MANIFEST_NAME).decode("utf-8", "replace"), store.url / MANIFEST_NAME)
    except (CacheError, MissingObjectError):
        return None


def _local_manifest(directory: Path) -> Manifest | None:
    try:
        return find_manifest(directory)
    except CacheError:
        return None


def _require_same_cache(manifest: Manifest, other: Manifest | None, where: str) -> None:
    if other is not None and other.fingerprint != manifest.fingerprint:
        raise CacheError(
            f"{where} holds another cache ({other.recipe.name}, {other.size_px} px, fingerprint "
            f"{other.fingerprint[:12]}): name another folder"
        )


def _require_room(directory: Path, entries: Sequence[Entry]) -> None:
    wanted, free = sum(entry.num_bytes for entry in entries), free_disk_bytes(directory)
    if free is not None and wanted > free:
        raise CacheError(f"{directory}: {wanted:,} bytes are to come, and {free:,} are free: make room or name another")
