"""``ldata list``: the caches in a folder."""

from __future__ import annotations

from pathlib import Path

import click

from cli.ldata.cache_text import cache_summary, codec_text
from cli.options import cache_root_option, json_option
from cli.output import format_bytes, format_table, print_json, print_note, print_text
from leukemia_data.caches.cache import find_cache_dirs
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.errors import CacheError


@click.command("list")
@cache_root_option
@json_option
def command(cache_root: Path, as_json: bool) -> None:
    """List the caches below --cache.

    \b
    Examples:
      ldata list
      ldata list --cache /data/caches --json
    """
    manifests = []
    for directory in find_cache_dirs(cache_root):
        try:
            manifests.append((directory, load_manifest(directory)))
        except CacheError as error:
            print_note(f"note: {error}")
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
