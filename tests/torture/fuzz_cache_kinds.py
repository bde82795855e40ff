"""The files of a cache, and their readers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cli.ldata
import cli.ltrain
from leukemia_data.building.shard_task import find_receipts, receipt_path
from leukemia_data.caches.cache import SampleReader, open_cache
from leukemia_data.caches.manifest import load_manifest, save_manifest
from leukemia_data.caches.verify import verify_cache
from leukemia_data.records.fingerprint import bytes_digest, lines_digest

from .fuzz_kind import FileKind, kind_at, replacing, run_command
from .fuzz_mutations import Mutate, mutated_bytes, mutated_json
from .fuzz_places import Places


def cache_kinds(places: Places) -> Iterator[FileKind]:
    directory = places.cache
    manifest = load_manifest(directory)
    manifest_path, index_path = directory / "manifest.json", directory / manifest.index.name
    shard_path = directory / manifest.shards[0].name

    def read() -> None:
        _read_cache(directory)

    def read_as_users() -> None:
        _read_cache(directory)
        for command in ("info", "stats", "verify"):
            run_command(cli.ldata.main, command, directory)

    yield kind_at("manifest", manifest_path, mutated_json, read)
    yield kind_at("manifest with its digest", manifest_path, _signed(mutated_json), read_as_users)
    yield kind_at("index", index_path, mutated_bytes, read)
    yield FileKind("index with its digest", (index_path.read_bytes(),), mutated_bytes, _told(index_path, read_as_users))
    yield kind_at("shard", shard_path, mutated_bytes, read)
    yield FileKind("shard with its digest", (shard_path.read_bytes(),), mutated_bytes, _told(shard_path, read_as_users))
    yield from _compressed_kinds(places)
    receipt = receipt_path(places.task, places.task.targets[0])
    yield kind_at("receipt", receipt, mutated_json, lambda: _read_receipts(places))


def _compressed_kinds(places: Places) -> Iterator[FileKind]:
    directory = places.compressed
    shard_path = directory / load_manifest(directory).shards[0].name

    def read() -> None:
        _read_cache(directory)

    yield kind_at("compressed shard", shard_path, mutated_bytes, read)
    told = _told(shard_path, read, own_metadata=True)
    yield FileKind("compressed shard with its digests", (shard_path.read_bytes(),), mutated_bytes, told)
    yield kind_at("manifest of a compressed cache", directory / "manifest.json", _signed(mutated_json), read)


def _read_cache(directory: Path) -> None:
    manifest = load_manifest(directory)
    assert all((directory / name).resolve().parent == directory.resolve() for name in manifest.file_names())
    with open_cache(directory) as cache:
        assert len(cache.table.id_texts) == len(cache.table.subject_texts) == len(cache) == manifest.num_samples
        assert set(cache.table.labels.tolist()) <= set(range(-1, len(manifest.classes)))
        images = SampleReader(cache).gather(np.arange(len(cache)))
        assert images.shape == (len(cache), manifest.size_px, manifest.size_px, 3)
    verify_cache(directory, num_threads=1, progress=lambda _: None)
    folder = directory.parent / "again"
    folder.mkdir(exist_ok=True)
    save_manifest(folder, manifest)
    assert load_manifest(folder) == manifest


def _signed(mutate: Mutate) -> Mutate:
    """With the digest that belongs to the content, as somebody with a purpose would write it."""

    def mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
        data = mutate(rng, seeds)
        try:
            return signed_manifest(json.loads(data))
        except (ValueError, RecursionError):
            return data

    return mutated


def signed_manifest(content: Any) -> bytes:
    """A manifest with the digest that docs/format.md describes."""
    if isinstance(content, dict):
        content["digest"] = lines_digest([json.dumps({**content, "digest": None}, sort_keys=True)])
    return json.dumps(content).encode()


def _told(path: Path, read: Callable[[], None], *, own_metadata: bool = False) -> Callable[[bytes], None]:
    """A reader of a file whose size and digest the manifest repeats; also that of the bytes around its pixels."""
    manifest_path = path.with_name("manifest.json")
    sound = manifest_path.read_bytes()
    replace_and_read = replacing(path, read)

    def tell_and_read(data: bytes) -> None:
        content = json.loads(sound)
        [entry] = [each for each in (*content["shards"], content["index"]) if each["name"] == path.name]
        entry |= {"num_bytes": len(data), "digest": bytes_digest(data).hex()}
        if own_metadata:
            pixels = slice(entry["images_offset_bytes"], entry["images_offset_bytes"] + entry["chunks_num_bytes"])
            entry["metadata_digest"] = bytes_digest(data[: pixels.start] + data[pixels.stop :]).hex()
        manifest_path.write_bytes(signed_manifest(content))
        try:
            replace_and_read(data)
        finally:
            manifest_path.write_bytes(sound)

    return tell_and_read


def _read_receipts(places: Places) -> None:
    found = find_receipts(places.task)
    if found is not None:
        assert found.source_states.shape == (len(places.task.records), 4)
        for entry in found.entries.values():
            assert (places.task.targets[0].directory / entry.name).resolve().parent == places.root / "unfinished"
