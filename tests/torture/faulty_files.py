"""Files that fail: the functions through which this project reaches the disk, counted, and one call of them disturbed.

For the length of a block the functions of ``os``, ``open``, ``numpy.fromfile`` and ``h5py.File`` are replaced. A call
that concerns a folder is counted by its kind; at the chosen one something happens: an error is raised, or the
process is killed. In this process only, and for all its threads.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np

_BY_PATH = {
    "open": "open",
    "replace": "rename",
    "rename": "rename",
    "unlink": "remove",
    "rmdir": "remove",
    "mkdir": "make folder",
    "stat": "stat",
    "scandir": "list",
    "listdir": "list",
}
KINDS = ("open", "read", "write", "fsync", "rename", "remove", "make folder", "stat", "list", "hdf5")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at which call.

    Attributes
    ----------
    number
        The how manieth call, from 1.
    act
        Called with the path in question, or None; an exception that it raises is what the caller meets.
    kind
        Which calls count; None counts all.
    is_lasting
        Whether all later calls of the kind are disturbed too, as on a disk that is full.
    """

    number: int
    act: Callable[[str | None], object]
    kind: str | None = None
    is_lasting: bool = False


class FaultyFiles:
    """Context in which calls that concern `root` are counted, and one of them is disturbed.

    Attributes
    ----------
    counts
        Calls so far, by kind; all together under ``None``.
    """

    def __init__(self, root: Path, fault: Fault | None = None) -> None:
        self.counts: Counter[str | None] = Counter()
        self.num_faults = 0
        self._root = os.fspath(root)
        self._fault = fault
        self._lock = threading.Lock()
        self._patches = ExitStack()

    def __enter__(self) -> FaultyFiles:
        for name, kind in _BY_PATH.items():
            self._replace(os, name, self._by_path(getattr(os, name), kind))
        self._replace(os, "fsync", self._always(os.fsync, "fsync"))
        opened = self._opening(io.open)
        self._replace(io, "open", opened)
        self._replace(builtins, "open", opened)
        self._replace(np, "fromfile", self._unwrapping(np.fromfile))
        self._replace(h5py, "File", self._hdf5_class())
        return self

    def __exit__(self, *raised: object) -> None:
        self._patches.close()

    def happens(self, kind: str, path: object) -> None:
        """Count a call, and disturb it if it is the one."""
        fault = self._fault
        with self._lock:
            self.counts[kind] += 1
            self.counts[None] += 1
            if fault is None or (fault.kind is not None and fault.kind != kind):
                return
            number = self.counts[fault.kind]
            if number != fault.number and not (fault.is_lasting and number > fault.number):
                return
            self.num_faults += 1
        fault.act(os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else None)

    def _replace(self, owner: object, name: str, function: object) -> None:
        self._patches.enter_context(patch.object(owner, name, function))

    def _concerns(self, path: object) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self._root)

    def _by_path(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if self._concerns(path) or kwargs.get("dir_fd") is not None:
                self.happens(kind, path)
            return function(path, *args, **kwargs)

        return counted

    def _always(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            # The system's own error names no file either.
            self.happens(kind, None)
            return function(*args)

        return counted

    def _opening(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._concerns(path):
                return function(path, *args, **kwargs)
            self.happens("open", path)
            return _FaultyFile(function(path, *args, **kwargs), self)

        return opened

    def _unwrapping(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def read(file: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(file, _FaultyFile):
                self.happens("read", None)
                file = file.file
            return function(file, *args, **kwargs)

        return read

    def _hdf5_class(self) -> type[h5py.File]:
        files = self

        class FaultyHdf5(h5py.File):
            def __init__(self, name: Any, *args: Any, **kwargs: Any) -> None:
                files.happens("hdf5", name)
                super().__init__(name, *args, **kwargs)

            def create_dataset(self, name: Any, *args: Any, **kwargs: Any) -> Any:
                files.happens("hdf5", None)
                return super().create_dataset(name, *args, **kwargs)

            def close(self) -> None:
                is_open = bool(self.id)
                super().close()
                if is_open:
                    files.happens("hdf5", None)

        return FaultyHdf5


class _FaultyFile:
    """An open file whose reads and writes are counted; a disturbed write leaves half of what it was given."""

    def __init__(self, file: Any, files: FaultyFiles) -> None:
        self.file = file
        self._files = files

    def read(self, *args: Any) -> Any:
        self._files.happens("read", None)
        return self.file.read(*args)

    def readinto(self, buffer: Any) -> Any:
        self._files.happens("read", None)
        return self.file.readinto(buffer)

    def write(self, content: Any) -> Any:
        try:
            self._files.happens("write", None)
        except OSError:
            self.file.write(content[: len(content) // 2])
            raise
        return self.file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _FaultyFile:
        return self

    def __exit__(self, *raised: object) -> None:
        self.file.close()

    def __iter__(self) -> Any:
        return iter(self.file)
