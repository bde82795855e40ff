"""Bits that turn over in a cache: verify finds each, and a repair from the source ends with the same bytes.

One fault is one to three flipped bits anywhere in the files that a cache consists of, a file cut short, one that is
gone, or two that changed places. Only a damaged manifest is no matter for a repair: it has to be refused, and a build
mends it.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from leukemia_data.building.repair import repair_cache
from leukemia_data.caches.manifest import MANIFEST_NAME
from leukemia_data.caches.verify import verify_cache
from leukemia_data.errors import CacheError
from leukemia_data.sources.source import list_source

from ..leukemia_data.helpers import build, cache_dir, flip_bit, make_source
from .tally import Report, Tally

SIZE = 16
NUM_IMAGES = 30
Files = dict[str, bytes]


def run(work_dir: Path, seed: int, count: int, report: Report) -> Tally:
    """Damage a cache `count` times; the damage of a seed is always the same.

    Parameters
    ----------
    work_dir
        An empty folder.
    seed, count
        The first seed, and how many.
    report
        Called with what was done and what came of it.
    """
    source = make_source(work_dir / "source", NUM_IMAGES)
    build(source, work_dir / "cache", sizes_px=(SIZE,))
    cache = cache_dir(work_dir / "cache", SIZE)
    sound = _files(cache)
    lost: list[str] = []
    for number in range(seed, seed + count):
        damage = _damage(cache, random.Random(number))
        wrong = _survives(cache, source, sound)
        report(damage, wrong or "survived")
        if wrong:
            lost.append(f"seed {number}: {damage}: {wrong}")
            _restore(cache, sound)
    return Tally(count, count - len(lost), tuple(lost))


def _files(cache: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(cache.iterdir()) if path.suffix in (".h5", ".json")}


def _damage(cache: Path, rng: random.Random) -> str:
    """Damage one or two files, and say how."""
    one, other = (cache / name for name in rng.sample(sorted(_files(cache)), 2))
    match rng.randrange(8):
        case 0:
            one.unlink()
            return f"{one.name} removed"
        case 1:
            keep = rng.randrange(one.stat().st_size)
            one.write_bytes(one.read_bytes()[:keep])
            return f"{one.name} cut to {keep} bytes"
        case 2:
            first, second = one.read_bytes(), other.read_bytes()
            one.write_bytes(second)
            other.write_bytes(first)
            return f"{one.name} and {other.name} swapped"
        case _:
            places = {(rng.randrange(one.stat().st_size), rng.randrange(8)) for _ in range(rng.randint(1, 3))}
            for offset, bit in places:
                flip_bit(one, offset, bit)
            return f"{one.name} with flipped bits {sorted(places)}"


def _survives(cache: Path, source: Path, sound: Files) -> str:
    """What went wrong, or nothing."""
    try:
        if not verify_cache(cache, num_threads=1, progress=lambda _: None).damages:
            return "verify found nothing"
        repair_cache(cache, lambda: list_source([source]).records, num_threads=1, progress=lambda _: None)
    except CacheError as error:
        if MANIFEST_NAME not in str(error):
            return f"refused: {error}"
        build(source, cache.parents[1], sizes_px=(SIZE,))
    if verify_cache(cache, num_threads=1, progress=lambda _: None).damages:
        # Rows that are lost in the index and in a shard are a build's matter.
        build(source, cache.parents[1], sizes_px=(SIZE,))
    changed = sorted(name for name in sound.keys() | _files(cache).keys() if _files(cache).get(name) != sound.get(name))
    return f"other bytes in {', '.join(changed)}" if changed else ""


def _restore(cache: Path, sound: Files) -> None:
    shutil.rmtree(cache)
    cache.mkdir()
    for name, content in sound.items():
        (cache / name).write_bytes(content)
