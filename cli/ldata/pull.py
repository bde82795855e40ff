"""``ldata pull``: copy a cache out of an object store."""

from __future__ import annotations

from pathlib import Path

import click

from cli.ldata.copy_options import num_files_option, print_copy
from cli.locations import LocalPath, LocationType
from cli.options import DEFAULT_CACHE_ROOT, json_option, size_filter_option
from cli.progress import progress_bar
from leukemia_data.stores.url import Location


@click.command("pull")
@click.argument("url", type=LocationType())
@click.argument(
    "directory", metavar="[DIR]", type=LocalPath(path_type=Path, file_okay=False), default=DEFAULT_CACHE_ROOT
)
@size_filter_option
@num_files_option
@json_option
def command(url: Location, directory: Path, size_px: int | None, num_files: int, as_json: bool) -> None:
    """Copy the cache at URL into the folder of caches DIR (default: cache), as DIR/NAME/SIZE-FINGERPRINT.

    URL is a cache, or a folder of caches of which one fits --size. Every file is held against its digest. Files that
    are here already are not fetched again, so an interrupted copy goes on where it was; the manifest comes last.

    \b
    Examples:
      ldata pull s3://lab/caches --size 224
      ldata pull s3://lab/caches/C-NMC_Leukemia/224-0123456789ab /data/caches --json
    """
    # Load fsspec: not for --help.
    from leukemia_data.caches.manifest import MANIFEST_NAME, parse_manifest
    from leukemia_data.caches.remote_cache import choose_location
    from leukemia_data.caches.transfer import cache_folder, open_folder, pull_cache

    store = open_folder(choose_location(url, size_px=size_px))
    data = store.read(MANIFEST_NAME)
    manifest = parse_manifest(data.decode("utf-8", "replace"), store.url / MANIFEST_NAME)
    target = directory.joinpath(*cache_folder(manifest))
    with progress_bar(manifest.num_bytes, "pulling", unit="B") as bar:
        report = pull_cache(store, data, target, num_threads=num_files, progress=bar.update)
    print_copy(report, str(store.url), str(target), as_json=as_json)
