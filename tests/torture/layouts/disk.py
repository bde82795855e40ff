"""A layout on disk: its files written below a folder, and removed again, however deep they lie."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from .layout import Layout, parents

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_layout(layout: Layout, folder: Path) -> None:
    """Write all files of a layout below an empty folder.

    Images are PNG files of one pixel, whatever their names end in; no two are alike.
    """
    root = str(folder)
    made: set[str] = set()
    images = {cell.path for cell in layout.cells}
    for path, target in layout.links.items():
        is_folder = path not in images
        _make_folders(root, f"{target}/" if is_folder else target, made)
        _make_folders(root, path, made)
        above = f"{root}/{path}".rpartition("/")[0]
        # Relative, so that the whole layout could be moved.
        Path(f"{root}/{path}").symlink_to(os.path.relpath(f"{root}/{target}", os.path.realpath(above)))
        if is_folder:
            made.add(path)
    for number, path in enumerate([*sorted(images), *layout.passed_over]):
        _write(root, path, tiny_png(number), made)
    for path, data in layout.files.items():
        _write(root, path, data, made)
    for path in layout.empty_folders:
        _make_folders(root, f"{path}/", made)


def remove_layout(folder: Path) -> None:
    """Remove a folder with everything below it; links are not followed."""
    # shutil.rmtree recurses, and does not get down 1,200 levels. Folders are moved up before they are emptied, because
    # a path of 1,200 names is slow to follow.
    pending = [str(folder)]
    for path in pending:
        with os.scandir(path) as entries:
            found = list(entries)
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                Path(entry.path).unlink()
            elif path == pending[0]:
                pending.append(entry.path)
            else:
                pending.append(f"{pending[0]}/.removed-{len(pending)}")
                Path(entry.path).rename(pending[-1])
    for path in reversed(pending):
        Path(path).rmdir()


def tiny_png(number: int) -> bytes:
    """A valid PNG of one RGB pixel, another for each number below 2**24."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    row = b"\0" + number.to_bytes(3, "big")
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(row)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _write(root: str, path: str, data: bytes, made: set[str]) -> None:
    _make_folders(root, path, made)
    Path(f"{root}/{path}").write_bytes(data)


def _make_folders(root: str, path: str, made: set[str]) -> None:
    """Make the folders above a file, from the top: ``os.makedirs`` recurses."""
    for parent in parents(path):
        if parent not in made:
            Path(f"{root}/{parent}").mkdir()
            made.add(parent)
