"""Everything below an address of a store, by its listing: no object is touched, a page tells a thousand of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from leukemia_data.files.file_state import FileState
from leukemia_data.sources.found_image import printable_name
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.tree_file import EXCLUDED, OUTPUT, PassedOver, TreeFile, is_output, why_passed_over
from leukemia_data.sources.tree_folders import TreeFolder

if TYPE_CHECKING:
    # Loads fsspec, which a source on disks has no use for.
    from leukemia_data.storage.object_store import StoredObject
    from leukemia_data.storage.stored_url import StoredUrl

_SECOND_NS = 10**9


def walk_store(
    root: StoredUrl, passed_over: PassedOver, options: ReadingOptions, given_names: Sequence[str] = ()
) -> Iterator[TreeFile]:
    """All objects below an address, as :func:`~leukemia_data.sources.folder_walk.walk_folder` tells files.

    Folders exist by the names of their objects alone. A part of a name may be empty (``a//1.bmp``): it stays so.
    """
    folders: dict[str, TreeFolder] = {}
    listed = sorted((name.split("/"), name, state) for name, state in root.walk())
    outputs = _output_folders([parts for parts, _, _ in listed])
    left_out: set[str] = set()
    for parts, name, state in listed:
        above = name[: -len(parts[-1])]
        if above not in folders:
            folders[above] = TreeFolder.of((*given_names, *parts[:-1]), len(given_names))
        reason, place = _why_not(parts, outputs, options, given_names, passed_over)
        if reason is None:
            yield TreeFile(folders[above], parts[-1], root / name, stored_state(state))
        elif place not in left_out:
            left_out.add(place)
            passed_over.add(reason, printable_name("/".join((*given_names, place))))


def _why_not(
    parts: Sequence[str],
    outputs: set[str],
    options: ReadingOptions,
    given_names: Sequence[str],
    passed_over: PassedOver,
) -> tuple[str | None, str]:
    """Why an object is passed over, and the outermost folder that this is true of."""
    for number, part in enumerate(parts, 1):
        place = "/".join(parts[:number])
        reason = OUTPUT if place in outputs else why_passed_over(part)
        if options.exclude:
            patterns = options.excluding(printable_name(place), "/".join((*given_names, printable_name(place))))
            passed_over.patterns |= patterns
            reason = reason or (EXCLUDED if patterns else None)
        if reason is not None:
            return reason, place
    return None, ""


def _output_folders(names: Sequence[Sequence[str]]) -> set[str]:
    """Folders that ltrain or ldata wrote, the source itself apart."""
    files: dict[str, list[str]] = {}
    for parts in names:
        files.setdefault("/".join(parts[:-1]), []).append(parts[-1])
    return {folder for folder, held in files.items() if folder and is_output(held)}


def stored_state(state: StoredObject) -> FileState:
    """An object's state: its time's fraction of a second tells its content where the store has a tag (ETag) for it.

    S3 knows seconds only, and two versions of one size may be written in the same one; their tags differ.
    """
    return FileState(state.num_bytes, state_ns(state))


def state_ns(state: StoredObject) -> int:
    """An object's modification time in nanoseconds, with what its tag adds."""
    if not state.tag:
        return state.modified_ns
    return state.modified_ns // _SECOND_NS * _SECOND_NS + zlib.crc32(state.tag.encode()) % _SECOND_NS
