"""Objects below one address, read, written and listed through fsspec."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.config import conf

from leukemia_data.errors import LeukemiaError, UsageError
from leukemia_data.files.atomic import PARTIAL_SUFFIX, move_into_place, scratch_path, sync_file
from leukemia_data.stores.faults import (
    ConflictError,
    MissingObjectError,
    Retry,
    ShortReadError,
    error_code,
    is_transient,
    storage_error,
)
from leukemia_data.stores.url import Url, parse_url

_S3 = frozenset({"s3", "s3a"})
_LOCAL = frozenset({"file", "local"})
_EXTRA = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
_KNOWN = _LOCAL | {"memory"} | _EXTRA.keys()
# Prefixes of the variables that name servers and credentials.
_SETTINGS = ("AWS_", "AZURE_", "FSSPEC_", "GCSFS_", "GOOGLE_", "STORAGE_")
# Threads that begin together share one file system.
_OPENING = threading.Lock()


def shared_filesystem(scheme: str) -> Any:  # noqa: ANN401 - fsspec has no types
    """Return this process's file system for a scheme and environment, opened once, which takes up to a second."""
    settings = tuple(item for item in sorted(os.environ.items()) if item[0].startswith(_SETTINGS))
    with _OPENING:
        return _opened(scheme, settings, os.getpid())


@lru_cache(maxsize=8)
def _opened(scheme: str, settings: tuple[tuple[str, str], ...], process: int) -> Any:  # noqa: ANN401
    return open_filesystem(scheme)


def open_filesystem(scheme: str) -> Any:  # noqa: ANN401 - fsspec has no types
    """Return a new file system without cached listings.

    Credentials and addresses of servers come from the environment, the library's files and fsspec's configuration.

    Raises
    ------
    UsageError
        If there is no such scheme, or its library is not installed.
    StorageError
        If the library refuses its settings.
    """
    if scheme not in _KNOWN:
        # Some others of fsspec cannot be opened by an address alone, or give no tags or ranges.
        raise UsageError(f"{scheme}:// is no kind of store that is known: use s3://, gs://, az:// or file://")
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme in _S3:
        own = {"retries": {"total_max_attempts": 1}, "max_pool_connections": 32}
        options["config_kwargs"] = {**own, **conf.get(scheme, {}).get("config_kwargs", {})}
    elif scheme in _LOCAL:
        options["auto_mkdir"] = True
    try:
        filesystem = fsspec.filesystem(scheme, **options)
    except ImportError as error:
        extra = _EXTRA.get(scheme)
        cure = f'pip install -e ".[{extra}]"' if extra else "install the library that fsspec names for it"
        raise UsageError(f"{scheme}:// needs a library that is not installed: {cure}") from error
    except Exception as error:
        # Libraries raise anything for wrong settings.
        raise storage_error(Url(scheme, ""), error, num_attempts=1) from error
    if scheme in _S3:
        # Attempts are counted by Retry.
        filesystem.retries = 1
    return filesystem


Progress = Callable[[int], object]
"""Called with the number of bytes moved since the last call."""
Range = tuple[str, int, int]
"""Name of an object, offset in bytes, number of bytes."""
Result = TypeVar("Result")

_CHUNK_BYTES = 8 << 20
_CHUNKS_AT_ONCE = 4
_TIME_KEYS = ("LastModified", "last_modified", "updated", "mtime", "created")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """State of an object.

    Attributes
    ----------
    num_bytes
        Its size.
    modified_ns
        Time of writing in nanoseconds since 1970; 0 if unknown.
    tag
        The store's tag of the content (ETag); empty if it has none.
    """

    num_bytes: int
    modified_ns: int = 0
    tag: str = ""


def open_store(url: Url | str, retry: Retry | None = None) -> ObjectStore:
    """Open the folder at an address, without a request.

    Raises
    ------
    UsageError
        If it is no address, or its library is not installed.
    """
    return ObjectStore(parse_url(url) if isinstance(url, str) else url, retry or Retry())


class ObjectStore:
    """Objects below one address. Safe to use from many threads; pickled and forked copies open new connections.

    Every method raises StorageError: MissingObjectError if there is no such object, ConflictError if a condition does
    not hold.

    Parameters
    ----------
    url
        The folder; names of objects are relative to it, with ``/`` between their parts.
    retry
        The attempts of each request.
    """

    def __init__(self, url: Url, retry: Retry) -> None:
        self.url, self._retry = url, retry
        self._is_s3, self._is_local = url.scheme in _S3, url.scheme in _LOCAL
        self._opened = os.getpid(), shared_filesystem(url.scheme)

    def below(self, folder: str) -> ObjectStore:
        """Return a folder of this store."""
        return ObjectStore(self.url / folder, self._retry)

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectStore, (self.url, self._retry)

    @property
    def _files(self) -> Any:  # noqa: ANN401 - fsspec has no types
        process, files = self._opened
        if process == os.getpid():
            return files
        # A forked child must not use its parent's connections.
        self._opened = os.getpid(), shared_filesystem(self.url.scheme)
        return self._opened[1]

    def read(self, name: str) -> bytes:
        """Return a whole object, by one request."""
        # Several would first request the size, and might get parts of two versions.
        options = {"max_concurrency": 1} if self._is_s3 else {}
        return self._ask(name, lambda: bytes(self._files.cat_file(self._path(name), **options)))

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Return parts of objects, read many at a time; raises StorageError for one that is too short."""
        found: list[bytes | None] = [b"" if num_bytes == 0 else None for _, _, num_bytes in ranges]

        failed = ""

        def read_missing() -> None:
            nonlocal failed
            missing = [position for position, data in enumerate(found) if data is None]
            errors = []
            for position, answer in zip(missing, self._cat_ranges([ranges[at] for at in missing]), strict=True):
                if isinstance(answer, BaseException):
                    errors.append((ranges[position][0], answer))
                else:
                    found[position] = answer
            if errors:
                failed, error = next((each for each in errors if not is_transient(each[1])), errors[0])
                raise error

        try:
            self._retry.run(read_missing)
        except Exception as error:
            url = self.url / failed if failed else self.url
            raise storage_error(url, error, num_attempts=self._retry.num_attempts) from error
        return [data for data in found if data is not None]

    def download(self, name: str, file: Path, progress: Progress | None = None) -> None:
        """Copy an object into a file of an existing folder, atomically."""
        state = self.stat(name)
        if state is None:
            raise storage_error(self.url / name, FileNotFoundError(name), num_attempts=1)
        with scratch_path(file.parent, file.name) as scratch:
            with scratch.open("wb") as target:
                for data in self.blocks(name, state.num_bytes):
                    target.write(data)
                    if progress:
                        progress(len(data))
            sync_file(scratch)
            move_into_place(scratch, file)

    def blocks(self, name: str, num_bytes: int) -> Iterator[bytes]:
        """Yield the bytes of an object of `num_bytes` in blocks, of which few are in memory."""
        starts = range(0, num_bytes, _CHUNK_BYTES)
        for first in range(0, len(starts), _CHUNKS_AT_ONCE):
            some = starts[first : first + _CHUNKS_AT_ONCE]
            yield from self.read_ranges([(name, start, min(_CHUNK_BYTES, num_bytes - start)) for start in some])

    def write(self, name: str, data: bytes) -> None:
        """Write or replace an object."""
        if self._is_local:
            self._land(name, lambda path: self._files.pipe_file(path, data))
        else:
            self._ask(name, lambda: self._files.pipe_file(self._path(name), data))

    def write_over(self, name: str, data: bytes, previous: StoredObject | None) -> None:
        """Write an object only if its state is still `previous`, or if None only if there is none.

        S3 compares and writes in one step; elsewhere the state is compared just before. Equal bytes are no conflict: an
        attempt whose answer was lost may have written them.
        """
        try:
            if self._is_s3:
                condition = {"IfNoneMatch": "*"} if previous is None else {"IfMatch": f'"{previous.tag}"'}
                self._ask(name, lambda: self._files.pipe_file(self._path(name), data, **condition))
            elif self.stat(name) != previous:
                raise ConflictError
            else:
                self.write(name, data)
        except (ConflictError, MissingObjectError) as error:
            if self.stat(name) is None or self.read(name) != data:
                raise ConflictError(f"{self.url / name} was changed by another process meanwhile") from error

    def upload(self, name: str, path: Path, progress: Progress | None = None) -> None:
        """Copy a file to an object, and compare their sizes."""
        if self._is_local:
            self._land(name, lambda target: self._files.put_file(str(path), target))
        else:
            self._ask(name, lambda: self._files.put_file(str(path), self._path(name)))
        num_bytes = path.stat().st_size
        state = self.stat(name)
        if state is None or state.num_bytes != num_bytes:
            error = ShortReadError(f"{state.num_bytes if state else 0:,} of {num_bytes:,} bytes arrived")
            raise storage_error(self.url / name, error, num_attempts=1)
        if progress:
            progress(num_bytes)

    def entries(self, folder: str = "") -> dict[str, StoredObject]:
        """Return the states of all objects below a folder, at any depth, by name; empty if there is no such folder."""
        return dict(self.iterate(folder))

    def iterate(self, folder: str = "") -> Iterator[tuple[str, StoredObject]]:
        """Yield names and states of all objects below a folder, page by page if the store has pages."""
        base = self._path(folder) if folder else self._base
        skipped = len(self._base.rstrip("/")) + 1
        pages = self._s3_pages(base) if self._is_s3 else iter([self._found(base)])
        for page in pages:
            for path, state in page:
                # Some tools write an empty folder as a name that ends with a slash.
                if not path.endswith("/"):
                    yield path[skipped:], state

    def folders(self, folder: str = "") -> list[str]:
        """Return the names of the folders directly in a folder, in alphabetical order."""
        base = self._path(folder) if folder else self._base
        try:
            found = self._ask(folder, lambda: self._files.ls(base, detail=True))
        except MissingObjectError as error:
            if error_code(error.__cause__ or error) == "NoSuchBucket":
                raise
            return []
        paths = [str(info["name"]).rstrip("/") for info in found if info.get("type") == "directory"]
        return sorted(path.rsplit("/", 1)[-1] for path in paths if path != base)

    def stat(self, name: str) -> StoredObject | None:
        """Return the state of an object; None if there is none."""
        try:
            info = self._ask(name, lambda: self._files.info(self._path(name)))
        except MissingObjectError:
            return None
        return _state(info) if info.get("type") == "file" else None

    def delete(self, *names: str) -> None:
        """Remove objects; missing ones are ignored."""
        for name in names:
            with suppress(MissingObjectError):
                self._ask(name, partial(self._files.rm_file, self._path(name)))

    @property
    def _base(self) -> str:
        """The folder's path in its file system, without a slash at its end."""
        return str(self._files._strip_protocol(str(self.url))).rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _ask(self, name: str, request: Callable[[], Result]) -> Result:
        try:
            return self._retry.run(request)
        except LeukemiaError:
            raise
        except Exception as error:
            url = self.url / name if name else self.url
            raise storage_error(url, error, num_attempts=self._retry.num_attempts) from error

    def _cat_ranges(self, ranges: Sequence[Range]) -> list[bytes | BaseException]:
        paths = [self._path(name) for name, _, _ in ranges]
        starts = [offset for _, offset, _ in ranges]
        ends = [offset + num_bytes for _, offset, num_bytes in ranges]
        answers = self._files.cat_ranges(paths, starts, ends, on_error="return")
        return [_checked(answer, num_bytes) for answer, (_, _, num_bytes) in zip(answers, ranges, strict=True)]

    def _land(self, name: str, write: Callable[[str], object]) -> None:
        """Write to a temporary name and rename, so that a local folder behaves like a store."""
        path = Path(self._path(name))
        scratch = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{PARTIAL_SUFFIX}")
        try:
            self._ask(name, lambda: write(str(scratch)))
            self._ask(name, lambda: move_into_place(scratch, path))
        finally:
            # A failure must not hide the first error.
            with suppress(OSError):
                scratch.unlink(missing_ok=True)

    def _s3_pages(self, base: str) -> Iterator[list[tuple[str, StoredObject]]]:
        bucket, _, folder = base.partition("/")
        request = {"Bucket": bucket, "Prefix": f"{folder}/" if folder else ""}
        while True:
            page = self._ask("", lambda: self._files.call_s3("list_objects_v2", **request))
            yield [(f"{bucket}/{info['Key']}", _state(info)) for info in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _found(self, base: str) -> list[tuple[str, StoredObject]]:
        try:
            found = self._ask("", lambda: self._files.find(base, detail=True))
        except MissingObjectError:
            return []
        return [(path, _state(info)) for path, info in found.items() if info.get("type") == "file" and path != base]


def _checked(answer: bytes | BaseException, num_bytes: int) -> bytes | BaseException:
    if isinstance(answer, BaseException) or len(answer) == num_bytes:
        return answer
    return ShortReadError(f"{len(answer):,} bytes came where {num_bytes:,} were requested")


def _state(info: dict[str, Any]) -> StoredObject:
    tag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    num_bytes = info["size"] if "size" in info else info["Size"]
    modified_ns = _nanoseconds(next((info[key] for key in _TIME_KEYS if info.get(key)), 0))
    # Servers give fractions of a second in listings only.
    return StoredObject(int(num_bytes), modified_ns // 10**9 * 10**9 if tag else modified_ns, tag)


def _nanoseconds(time: datetime | str | float) -> int:
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    return int((time.timestamp() if isinstance(time, datetime) else time) * 10**9)


class StoredUrl(Url):
    """The address of a folder or an object that can be read. Errors are those of :class:`ObjectStore`."""

    __slots__ = ()

    def read_bytes(self) -> bytes:
        """Return the whole object."""
        return self._bucket_store.read(self.key)

    def state(self) -> StoredObject | None:
        """Return the state of the object; None if there is none."""
        return self._bucket_store.stat(self.key)

    def walk(self) -> Iterator[tuple[str, StoredObject]]:
        """Yield names below this folder, at any depth, and their states, by listing."""
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
    """Return an address that can be read."""
    return StoredUrl(url.scheme, url.path)
