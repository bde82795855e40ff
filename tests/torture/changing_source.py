"""Images that change, vanish and come back while a build reads them, and clocks that are wrong.

A thread changes files during builds. Whatever is committed then holds, image by image, the pixels of a state that the
file really had as a whole; and once the source is at rest the next build has the shards of a fresh one.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np

from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.verify import verify_cache
from leukemia_data.decoding.decode import decode_rgb
from leukemia_data.operations.recipe import Preprocessor, load_recipe
from leukemia_data.records.fingerprint import bytes_digest

from ..leukemia_data.helpers import OLD_NS, all_shards
from .build_bench import tallied
from .build_ground import RECIPE, arguments_of_build
from .io_faults import badly_told, run_ldata
from .tally import Report, Tally

_NUM_IMAGES = 40
_PAGE_BYTES = 4096
_HOUR_NS = 3_600_000_000_000


def run(work_dir: Path, seed: int, count: int, report: Report) -> Tally:
    """Try `count` builds of a source that changes; the changes of each seed from `seed` on."""
    recipe = work_dir / "tiny.toml"
    recipe.write_text(RECIPE, encoding="utf-8")

    def results() -> Iterator[tuple[int, str, list[str]]]:
        for number in range(seed, seed + count):
            folder = work_dir / str(number)
            yield (number, *_try_changes(folder, recipe, random.Random(number)))
            shutil.rmtree(folder)

    return tallied(results(), report)


def _try_changes(folder: Path, recipe: Path, draw: random.Random) -> tuple[str, list[str]]:
    """Three builds while files change, then one at rest."""
    source = _ChangingSource(folder / "source", draw.randrange(1 << 30))
    clock_step_ns = draw.choice([0, 0, -_HOUR_NS, _HOUR_NS])
    tolerant = ["--on-error", "quarantine", "--max-bad", "100%"] if draw.random() < 0.7 else []
    arguments = arguments_of_build(source.root, folder / "cache", recipe)
    problems = []
    for _ in range(3):
        with _stepped_clock(clock_step_ns), source.changing():
            problems += badly_told(*run_ldata([*arguments, *tolerant]))
        problems += _torn_images(folder / "cache", recipe, source)
    source.come_to_rest()
    code, errors = run_ldata(arguments)
    run_ldata(arguments_of_build(source.root, folder / "fresh", recipe))
    if code != 0:
        problems.append(f"the build at rest failed: {errors[-300:]}")
    elif all_shards(folder / "cache") != all_shards(folder / "fresh"):
        problems.append("the build at rest is not that of a fresh one")
    step = f", the clock {clock_step_ns / 1e9:+.0f} s" if clock_step_ns else ""
    return f"{source.num_changes} changes during three builds{step}", problems


def _torn_images(cache: Path, recipe: Path, source: _ChangingSource) -> list[str]:
    """Images of committed caches that are of no state that their file ever had."""
    problems = []
    for manifest in sorted(cache.rglob("manifest.json")):
        opened = open_cache(manifest.parent)
        report = verify_cache(manifest.parent, num_threads=1, progress=lambda _: None)
        problems += [f"{damage.file}: {damage.problem}" for damage in report.damages]
        preprocess = Preprocessor(load_recipe(str(recipe)), (opened.size_px,))
        for number, record_id in enumerate(opened.table.id_texts):
            content = source.states[record_id].get(opened.table.source_digests[number].tobytes())
            if content is None:
                problems.append(f"{record_id} was never like that")
                continue
            expected = preprocess(decode_rgb(np.frombuffer(content, np.uint8)))[opened.size_px]
            if not np.array_equal(opened.reader.image(number), expected):
                problems.append(f"{record_id} has the pixels of another state")
        opened.close()
    return problems


@dataclass
class _ChangingSource:
    """A folder of images, all states that each file has had, and a thread that makes new ones.

    Attributes
    ----------
    states
        By id and digest: the contents that a file has had, whole.
    """

    root: Path
    seed: int
    states: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    num_changes: int = 0

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self._paths = []
        for number in range(_NUM_IMAGES):
            path = self.root / ("blast", "normal")[number % 2] / f"p{number // 2 % 4}" / f"{number:03}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._paths.append(path)
            self._replace(path, self._new_content())
            os.utime(path, ns=(OLD_NS, OLD_NS))

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Change files, one after the other, for the block."""
        is_over = threading.Event()

        def change() -> None:
            while not is_over.is_set():
                self._change(self._draw.choice(self._paths))
                time.sleep(self._draw.random() * 0.004)

        thread = threading.Thread(target=change)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def come_to_rest(self) -> None:
        """Give every file a whole content."""
        for path in self._paths:
            if not path.exists() or bytes_digest(path.read_bytes()) not in self.states[self._id(path)]:
                self._replace(path, self._new_content())

    def _id(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _remember(self, path: Path, content: bytes) -> None:
        self.states.setdefault(self._id(path), {})[bytes_digest(content)] = content

    def _new_content(self) -> bytes:
        """A BMP: always of the same size and without checksums, so that only care can tell two states apart."""
        pixels = np.random.default_rng(self._draw.randrange(1 << 30)).integers(0, 256, (36, 44, 3), dtype=np.uint8)
        return cv2.imencode(".bmp", pixels)[1].tobytes()

    def _change(self, path: Path) -> None:
        self.num_changes += 1
        content = self._new_content()
        kinds = [self._replace, self._rewrite, self._overwrite, self._vanish, self._grow, self._date]
        kinds += [self._forge, self._swap, self._relink]
        self._draw.choice(kinds)(path, content)

    def _replace(self, path: Path, content: bytes) -> None:
        self._remember(path, content)
        fresh = self.root.with_name("fresh-file")
        fresh.write_bytes(content)
        fresh.replace(path)

    def _rewrite(self, path: Path, content: bytes) -> None:
        """In two pieces: for a moment half of the file is there."""
        self._remember(path, content)
        with path.open("wb", buffering=0) as file:
            file.write(content[: len(content) // 2])
            time.sleep(self._draw.random() * 0.002)
            file.write(content[len(content) // 2 :])

    def _overwrite(self, path: Path, content: bytes) -> None:
        """In place and in pieces. Between two of them nothing tells that only half is new: that is a state too."""
        earlier = path.read_bytes()
        with path.open("rb+", buffering=0) as file:
            for end in range(1000, len(content) + 1000, 1000):
                self._remember(path, content[:end] + earlier[end:])
                file.write(content[end - 1000 : end])
                time.sleep(self._draw.random() * 0.0005)

    def _vanish(self, path: Path, content: bytes) -> None:
        path.unlink(missing_ok=True)
        time.sleep(self._draw.random() * 0.002)
        self._replace(path, content)

    def _grow(self, path: Path, content: bytes) -> None:
        """A program that copies piece by piece, opening the file for each."""
        self._remember(path, content)
        path.write_bytes(b"")
        for start in range(0, len(content), 1000):
            with path.open("ab") as file:
                file.write(content[start : start + 1000])

    def _date(self, path: Path, content: bytes) -> None:
        """A new content with a time of its own, long ago or to come, as an unpacked archive gives it."""
        self._replace(path, content)
        mtime_ns = OLD_NS + self._draw.randrange(-_HOUR_NS, _HOUR_NS) if self._draw.random() < 0.5 else 0
        mtime_ns = mtime_ns or time.time_ns() + self._draw.randrange(_HOUR_NS)
        os.utime(path, ns=(mtime_ns, mtime_ns))

    def _forge(self, path: Path, content: bytes) -> None:
        """Another content in place, with the time of the one before: only the change time is another."""
        self._remember(path, content)
        # Whoever reads meanwhile may meet the first page of it alone.
        self._remember(path, content[:_PAGE_BYTES] + path.read_bytes()[_PAGE_BYTES:])
        mtime_ns = path.stat().st_mtime_ns
        with path.open("rb+", buffering=0) as file:
            file.write(content)
        os.utime(path, ns=(mtime_ns, mtime_ns))

    def _swap(self, path: Path, content: bytes) -> None:
        """Two files take each other's name, as renumbering does."""
        other = self._draw.choice([candidate for candidate in self._paths if candidate != path])
        self._remember(path, other.read_bytes())
        self._remember(other, path.read_bytes())
        aside = self.root.with_name("aside")
        path.replace(aside)
        other.replace(path)
        aside.replace(other)

    def _relink(self, path: Path, content: bytes) -> None:
        """A hard link to another file of the same size and time."""
        self._remember(path, content)
        mtime_ns = path.stat().st_mtime_ns
        fresh = self.root.with_name("fresh-file")
        fresh.unlink(missing_ok=True)
        fresh.write_bytes(content)
        os.utime(fresh, ns=(mtime_ns, mtime_ns))
        path.unlink()
        path.hardlink_to(fresh)
        fresh.unlink()


@contextmanager
def _stepped_clock(step_ns: int) -> Iterator[None]:
    """The clock that builds look at is wrong by so much."""
    right = time.time_ns
    with patch.object(time, "time_ns", lambda: right() + step_ns):
        yield
