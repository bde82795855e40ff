"""``ldata push`` and ``pull``: copies of caches into object stores and out of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import CONSOLE
from cli.locations import LocalPath, LocationType
from cli.options import DEFAULT_CACHE_ROOT, json_option, size_filter_option
from cli.output import format_bytes, print_json, print_text
from leukemia_data.stores.url import Location

if TYPE_CHECKING:
    from leukemia_data.caches.transfer import CopyReport

num_files_option = click.option(
    "--num-files", default=4, show_default=True, type=click.IntRange(1, 64), help="Files copied at a time."
)


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
def push(cache: Path, url: Location, size_px: int | None, is_verify: bool, num_files: int, as_json: bool) -> None:
    """Copy CACHE into the folder of caches at URL, as URL/NAME/SIZE-FINGERPRINT.

    CACHE is a cache, or a folder of caches of which one fits --size. Files that are there already are not sent again,
    so an interrupted copy goes on where it was, and a newer state of a cache sends what is new. The manifest comes
    last: whoever reads sees the old state or the new one. Nothing is removed; `ldata gc` does that.

    \b
    Examples:
      ldata push cache s3://lab/caches --size 224
      ldata push cache/C-NMC_Leukemia/224-0123456789ab s3://lab/caches --verify
    """
    # Loads fsspec: not for --help.
    from leukemia_data.caches import transfer

    _print(
        transfer.push(cache, url, size_px=size_px, verify=is_verify, num_files=num_files, console=CONSOLE),
        as_json=as_json,
    )


@click.command("pull")
@click.argument("url", type=LocationType())
@click.argument(
    "directory", metavar="[DIR]", type=LocalPath(path_type=Path, file_okay=False), default=DEFAULT_CACHE_ROOT
)
@size_filter_option
@num_files_option
@json_option
def pull(url: Location, directory: Path, size_px: int | None, num_files: int, as_json: bool) -> None:
    """Copy the cache at URL into the folder of caches DIR (default: cache), as DIR/NAME/SIZE-FINGERPRINT.

    URL is a cache, or a folder of caches of which one fits --size. Every file is held against its digest. Files that
    are here already are not fetched again, so an interrupted copy goes on where it was; the manifest comes last.

    \b
    Examples:
      ldata pull s3://lab/caches --size 224
      ldata pull s3://lab/caches/C-NMC_Leukemia/224-0123456789ab /data/caches --json
    """
    # Loads fsspec: not for --help.
    from leukemia_data.caches import transfer

    _print(transfer.pull(url, directory, size_px=size_px, num_files=num_files, console=CONSOLE), as_json=as_json)


def _print(report: CopyReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
        return
    num_kept = report.num_files - report.num_sent
    kept = f"; {num_kept:,} were there already" if num_kept else ""
    print_text(
        f"{report.target}: {report.num_sent:,} of {report.num_files:,} files copied "
        f"({format_bytes(report.sent_bytes)}){kept}"
    )
