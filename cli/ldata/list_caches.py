"""``ldata list``: the caches in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import click

from cli.ldata.cache_text import cache_summary, codec_text
from cli.options import cache_location_option, json_option
from cli.output import format_bytes, format_table, print_json, print_note, print_text
from leukemia_data.caches.cache import find_cache_dirs
from leukemia_data.caches.manifest import Manifest, load_manifest
from leukemia_data.errors import CacheError
from leukemia_data.stores.url import Location, Url


@click.command("list")
@cache_location_option
@json_option
def command(cache_root: Location, as_json: bool) -> None:
    """List the caches below --cache.

    \b
    Examples:
      ldata list
      ldata list --cache /data/caches --json
      ldata list --cache s3://bucket/caches
    """
    manifests = _list_stored(cache_root) if isinstance(cache_root, Url) else _list_dirs(cache_root)
    if as_json:
        print_json(
            [{**cache_summary(*pair), "recipe": pair[1].recipe.name, "name": pair[1].name} for pair in manifests]
        )
        return
    if not manifests:
        print_text(f"no caches in {cache_root}; make one with `ldata build`")
        return
    rows = [
        [
            manifest.name,
            str(manifest.size_px),
            manifest.recipe.name,
            f"{manifest.num_samples:,}",
            str(len(manifest.quarantined)),
            format_bytes(manifest.num_bytes),
            codec_text(manifest),
            str(directory),
        ]
        for directory, manifest in manifests
    ]
    print_text(format_table(["name", "px", "recipe", "images", "quarantined", "size", "codec", "directory"], rows))


def _list_dirs(root: Path) -> list[tuple[Location, Manifest]]:
    return list(_readable(find_cache_dirs(root), load_manifest))


def _list_stored(url: Url) -> list[tuple[Location, Manifest]]:
    # Loads fsspec, for which a folder has no use.
    from leukemia_data.caches.remote_cache import find_remote_caches, read_manifest_at

    return list(_readable(find_remote_caches(url), read_manifest_at))


Place = TypeVar("Place", Path, Url)


def _readable(places: Iterable[Place], read: Callable[[Place], Manifest]) -> Iterator[tuple[Location, Manifest]]:
    for place in places:
        try:
            yield place, read(place)
        except CacheError as error:
            print_note(f"note: {error}")
