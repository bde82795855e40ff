"""A small cache of many shards, and a copy in a bucket, made without the code under test."""

from __future__ import annotations

from pathlib import Path

from leukemia_data.caches.manifest import load_manifest

from ...object_server import ObjectServer

SIZE, NUM = 16, 40


def put_cache(directory: Path, server: ObjectServer, url: str) -> str:
    """Put every file of a cache into a bucket; returns the cache's address."""
    for name in load_manifest(directory).file_names():
        server.write(f"{url}/{name}", (directory / name).read_bytes())
    return url


def shard_names(directory: Path) -> list[str]:
    return [shard.name for shard in load_manifest(directory).shards]
