"""What builds are disturbed on, and how to tell whether they survived: two states of a source, and caches of both.

The source is small: a few hundred frames of forty pixels, so that a build takes a fraction of a second, and enough
for several shards. State B changes, adds and removes some of state A's images.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.building.garbage import collect_garbage
from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.verify import verify_cache
from leukemia_data.errors import LeukemiaError

from ..leukemia_data.helpers import OLD_NS, write_cell

SIZES = (16, 24)
NAME = "cells"
Listing = dict[str, bytes]
"""Bytes of every file below a folder, by its path there."""
RunLdata = Callable[[list[str]], tuple[int, str]]
"""Runs ``ldata`` with arguments: its exit code, and what it wrote on stderr."""

RECIPE = """description = "Tiny frames."

[[step]]
op = "canvas"
side_px = 40

[[step]]
op = "center_crop"
side_px = 32

[[step]]
op = "resize"
method = "area"
"""


@dataclass(frozen=True, slots=True)
class BuildGround:
    """Sources and undisturbed caches.

    Attributes
    ----------
    first, second
        The source's states.
    recipe
        File of the recipe.
    first_cache
        Folder with the caches of the first state.
    first_files, second_files
        What lies in a cache folder after an undisturbed build of each state, and gc.
    """

    first: Path
    second: Path
    recipe: Path
    first_cache: Path
    first_files: Listing
    second_files: Listing

    def arguments(self, source: Path, cache: Path, n_jobs: int = 1) -> list[str]:
        """The command that builds a state."""
        return arguments_of_build(source, cache, self.recipe, n_jobs)

    def fresh_cache(self, folder: Path, *, with_first: bool) -> Path:
        """An empty cache folder, or one that holds the caches of the first state."""
        shutil.rmtree(folder, ignore_errors=True)
        if with_first:
            shutil.copytree(self.first_cache, folder)
        return folder


def arguments_of_build(source: Path, cache: Path, recipe: Path, n_jobs: int = 1) -> list[str]:
    """The command that builds a source into caches of both sizes."""
    sizes = [word for size in SIZES for word in ("--size", str(size))]
    words = ["build", source, *sizes, "--recipe", recipe, "--cache", cache, "--name", NAME, "--n-jobs", n_jobs]
    return [str(word) for word in words]


def make_ground(folder: Path, run: RunLdata, num_images: int = 300) -> BuildGround:
    """Write both states of the source and build them undisturbed by a function that runs ``ldata``."""
    first, second, recipe = folder / "first", folder / "second", folder / "tiny.toml"
    folder.mkdir(parents=True, exist_ok=True)
    recipe.write_text(RECIPE, encoding="utf-8")
    _write_states(first, second, num_images)
    # Change times of the clock's last tick are not trusted, and an index says so: all builds shall write the same.
    time.sleep(0.03)
    unbuilt = BuildGround(first, second, recipe, folder / "first-cache", {}, {})
    listings = []
    for source, cache in ((first, unbuilt.first_cache), (second, folder / "second-cache")):
        code, errors = run(unbuilt.arguments(source, cache))
        if code != 0:
            raise RuntimeError(f"the undisturbed build failed: {errors}")
        listings.append(read_files(cache))
    return BuildGround(first, second, recipe, unbuilt.first_cache, *listings)


def read_files(folder: Path) -> Listing:
    """All files below a folder; empty folders are listed too, with a slash at the end of their path."""
    found = sorted(folder.rglob("*"))
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found if path.is_file()}
    folders = {f"{path.relative_to(folder).as_posix()}/": b"" for path in found if path.is_dir()}
    return files | folders


def wrong_caches(cache: Path, allowed: Sequence[Listing], *, must_open: bool) -> list[str]:
    """What is wrong with the caches that open: each must be one that an undisturbed build makes, byte for byte.

    Parameters
    ----------
    cache
        The folder of the caches.
    allowed
        Undisturbed states of it.
    must_open
        Whether there was a cache before, which has to be there still.
    """
    manifests = sorted(path for path in cache.rglob("manifest.json"))
    problems = []
    if must_open and len(manifests) != len(SIZES):
        problems.append(f"{len(manifests)} of {len(SIZES)} earlier caches are left")
    for manifest in manifests:
        name = manifest.relative_to(cache).as_posix()
        if manifest.read_bytes() not in [listing.get(name) for listing in allowed]:
            problems.append(f"{name} is none that an undisturbed build writes")
        try:
            open_cache(manifest.parent).close()
            report = verify_cache(manifest.parent, num_threads=1, progress=lambda _: None)
            problems.extend(f"{damage.file}: {damage.problem}" for damage in report.damages)
        except LeukemiaError as error:
            problems.append(f"{name} does not open: {error}")
    return problems


def left_after_gc(cache: Path, wanted: Listing) -> list[str]:
    """What gc leaves beside the cache, and what of the cache is not as an undisturbed build makes it."""
    report = collect_garbage(cache, remove=True)
    found = read_files(cache)
    return [
        *(f"gc passed over {reason}" for reason in report.skipped),
        *(f"{name} is left over" for name in sorted(found.keys() - wanted.keys())),
        *(f"{name} is missing" for name in sorted(wanted.keys() - found.keys())),
        *(f"{name} has other bytes" for name in sorted(found.keys() & wanted.keys()) if found[name] != wanted[name]),
    ]


def _write_states(first: Path, second: Path, num_images: int) -> None:
    for number in range(num_images):
        place = Path(("blast", "normal")[number % 2], f"p{number // 2 % 4}", f"{number:03}.png")
        write_cell(first / place, number)
        if number % 40 == 7:
            write_cell(second / place, 10_000 + number, mtime_ns=OLD_NS + 5)
        elif number % 40 != 8:
            write_cell(second / place, number)
    for number in range(num_images, num_images + 5):
        write_cell(second / "blast" / "p1" / f"{number:03}.png", number)
