"""Everything below an address of a store, by its listing: no object is touched, a page tells a thousand of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from leukemia_data.files.file_state import FileState, time_in_64_bits
from leukemia_data.sources.tree_file import TreeFile, TreeFolder, is_passed_over

if TYPE_CHECKING:
    # Loads fsspec, which a source on disks has no use for.
    from leukemia_data.storage.object_store import StoredObject
    from leukemia_data.storage.stored_url import StoredUrl

_SECOND_NS = 10**9


def walk_store(root: StoredUrl) -> Iterator[TreeFile]:
    """All objects below an address, as :func:`~leukemia_data.sources.folder_walk.walk_folder` tells files.

    Folders exist by the names of their objects alone. A part of a name may be empty (``a//1.bmp``): it stays so.
    """
    folders: dict[str, TreeFolder] = {}
    listed = sorted((name.split("/"), name, state) for name, state in root.walk())
    for parts, name, state in listed:
        if any(map(is_passed_over, parts)):
            continue
        above = name[: -len(parts[-1])]
        if above not in folders:
            folders[above] = TreeFolder(tuple(parts[:-1]))
        yield TreeFile(folders[above], parts[-1], root / name, stored_state(state))


def stored_state(state: StoredObject) -> FileState:
    """The state of an object: its size, and its modification time, whose fraction of a second tells its content.

    S3 knows seconds only, and two versions of one size may be written in the same one; its tag tells them apart. Stores
    know neither change times nor numbers of files.
    """
    modified_ns = state.modified_ns
    if state.tag:
        modified_ns = modified_ns // _SECOND_NS * _SECOND_NS + zlib.crc32(state.tag.encode()) % _SECOND_NS
    return FileState(state.num_bytes, time_in_64_bits(modified_ns))
