"""The room of a stage: who may write how much, and which files go for it.

Thousands of shards may be staged. To look at all of them for each that comes would be quadratic, so a note beside the
lock tells how many bytes lie there at the most: files are looked at when that is too much, or when the note is old.
Rooms of files that failed stay in the note until then, so that it never tells too little.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from leukemia_data.files.atomic import PARTIAL_SUFFIX
from leukemia_data.files.disk_room import free_disk_bytes
from leukemia_data.files.documents import parse_json

LOCKS_DIR = "locks"
_ROOM_LOCK = "room.lock"
_NOTE_NAME = "room.json"
_RESERVED_SUFFIX = ".reserved"
_FILE_SUFFIX = ".h5"
# What nobody has written to for so long is of a process that is no more.
_DEAD_AFTER_S = 3600.0
_LOOK_AFTER_S = 60.0
_FREE_SHARE = 0.5
_UNKNOWN_FREE_BYTES = 1 << 40
# Of a full stage's files so many go at a time, so that not each that comes has to look at all.
_GOES_SHARE = 1 / 64


@dataclass(frozen=True, slots=True)
class _StagedFile:
    name: str
    num_bytes: int
    used_ns: int


@dataclass(frozen=True, slots=True)
class _Note:
    """Bytes that lie in the stage at the most, and when its files were looked at."""

    num_bytes: int
    looked_s: float


class StageRoom:
    """Sets room aside in a stage's folder, for all processes of a machine. Pickles.

    Parameters
    ----------
    directory
        The folder; its folder of locks must exist when room is set aside.
    most_bytes
        What all files in it may come to; None for half of what the disk would have free without them.
    """

    def __init__(self, directory: Path, most_bytes: int | None) -> None:
        self._directory = directory
        self._most_bytes = most_bytes

    def reserve(self, name: str, num_bytes: int, keep: Collection[str]) -> bool:
        """Set room aside for a file, and remove others if it needs theirs, but none of `keep`; False for no room."""
        with FileLock(self._directory / LOCKS_DIR / _ROOM_LOCK):
            note = self._read_note()
            is_enough = note is not None and self._missing_bytes(note.num_bytes, num_bytes) <= 0
            if note is None or not is_enough:
                used_bytes, is_enough = self._make_room(num_bytes, keep)
                note = _Note(used_bytes, time.time())
            self._write_note(_Note(note.num_bytes + num_bytes * is_enough, note.looked_s))
            if not is_enough:
                return False
            with self._reserved(name).open("wb") as file_of_zeros:
                # Counts as if it were full, and takes no room.
                file_of_zeros.truncate(num_bytes)
            return True

    def release(self, name: str) -> None:
        """Give the room back that was set aside for a file: it is there now, or will not come."""
        with suppress(OSError):
            self._reserved(name).unlink(missing_ok=True)

    def _reserved(self, name: str) -> Path:
        return self._directory / f"{name}{_RESERVED_SUFFIX}"

    def _missing_bytes(self, used_bytes: int, num_bytes: int) -> int:
        return used_bytes + num_bytes - self._bound_bytes(used_bytes)

    def _bound_bytes(self, used_bytes: int) -> int:
        if self._most_bytes is not None:
            return self._most_bytes
        free = free_disk_bytes(self._directory)
        # Where `used_bytes` tells too much, the bound grows by less than that.
        return _UNKNOWN_FREE_BYTES if free is None else int((free + used_bytes) * _FREE_SHARE)

    def _make_room(self, num_bytes: int, keep: Collection[str]) -> tuple[int, bool]:
        """Look at all files, and remove those that are in the way, if that is of use.

        Returns the bytes that lie there then, and whether there is room now. How much the disk has free is not asked
        again: where a file is still mapped, or the system takes its time, that comes later.
        """
        files = self._scan()
        used_bytes = sum(file.num_bytes for file in files)
        missing = self._missing_bytes(used_bytes, num_bytes)
        spare = [file for file in files if file.name.endswith(_FILE_SUFFIX) and file.name not in keep]
        if missing <= 0 or missing > sum(file.num_bytes for file in spare):
            return used_bytes, missing <= 0
        num_wanted, removed_bytes, num_removed = int(len(files) * _GOES_SHARE), 0, 0
        for file in sorted(spare, key=lambda file: file.used_ns):
            if removed_bytes >= missing and num_removed >= num_wanted:
                break
            # One that is in use stays on Windows.
            with suppress(OSError):
                (self._directory / file.name).unlink()
                removed_bytes += file.num_bytes
                num_removed += 1
        return used_bytes - removed_bytes, removed_bytes >= missing

    def _scan(self) -> list[_StagedFile]:
        """Staged files and rooms set aside; what dead processes left is removed."""
        files, now_s = [], time.time()
        with os.scandir(self._directory) as found:
            for item in found:
                with suppress(FileNotFoundError):
                    state = item.stat()
                    is_passing = item.name.endswith((PARTIAL_SUFFIX, _RESERVED_SUFFIX))
                    if is_passing and now_s - state.st_mtime > _DEAD_AFTER_S:
                        Path(item.path).unlink()
                    elif item.name.endswith((_FILE_SUFFIX, _RESERVED_SUFFIX)):
                        files.append(_StagedFile(item.name, state.st_size, state.st_mtime_ns))
        return files

    @property
    def _note_path(self) -> Path:
        return self._directory / LOCKS_DIR / _NOTE_NAME

    def _read_note(self) -> _Note | None:
        """The note; None if files have to be looked at."""
        try:
            values = parse_json(self._note_path.read_text(encoding="utf-8"))
            note = _Note(int(values["num_bytes"]), float(values["looked_s"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return note if note.num_bytes >= 0 and 0 <= time.time() - note.looked_s < _LOOK_AFTER_S else None

    def _write_note(self, note: _Note) -> None:
        """Write the note, which nobody reads meanwhile; one that is cut off by a crash counts as none."""
        try:
            self._note_path.write_text(json.dumps(asdict(note)) + "\n", encoding="utf-8")
        except OSError:
            # An old one would tell too little.
            self._note_path.unlink(missing_ok=True)
