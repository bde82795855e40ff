"""``ldata push``: copy a cache into an object store."""

from __future__ import annotations

from pathlib import Path

import click

from cli.ldata.copy_options import num_files_option, print_copy
from cli.locations import LocalPath, LocationType
from cli.options import json_option, size_filter_option
from cli.progress import progress_bar
from leukemia_data.caches.cache import choose_cache_dir
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.stores.url import Location


@click.command("push")
@click.argument("cache", type=LocalPath(path_type=Path, file_okay=False))
@click.argument("url", type=LocationType())
@size_filter_option
@click.option(
    "--verify",
    "is_verify",
    is_flag=True,
    help="Read back what is there already and what was sent, and hold it against its digest.",
)
@num_files_option
@json_option
def command(cache: Path, url: Location, size_px: int | None, is_verify: bool, num_files: int, as_json: bool) -> None:
    """Copy CACHE into the folder of caches at URL, as URL/NAME/SIZE-FINGERPRINT.

    CACHE is a cache, or a folder of caches of which one fits --size. Files that are there already are not sent again,
    so an interrupted copy goes on where it was, and a newer state of a cache sends what is new. The manifest comes
    last: whoever reads sees the old state or the new one. Nothing is removed; `ldata gc` does that.

    \b
    Examples:
      ldata push cache s3://lab/caches --size 224
      ldata push cache/C-NMC_Leukemia/224-0123456789ab s3://lab/caches --verify
    """
    directory = choose_cache_dir(cache, size_px=size_px)
    manifest = load_manifest(directory)
    # Load fsspec: not for --help.
    from leukemia_data.caches.transfer import folder_of_cache, open_folder, push_cache

    store = open_folder(folder_of_cache(url, manifest))
    with progress_bar(manifest.num_bytes, "pushing", unit="B") as bar:
        report = push_cache(directory, store, num_threads=num_files, is_verify=is_verify, progress=bar.update)
    print_copy(report, str(directory), str(store.url), as_json=as_json)
