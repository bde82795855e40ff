"""``ldata audit``: look for leaks, contradictions and odd frames before anybody trains."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli.console import CONSOLE
from cli.locations import LocalPath, SourceType
from cli.options import (
    allow_outside_option,
    cache_root_option,
    json_option,
    root_option,
    seed_type,
    size_filter_option,
)
from cli.reading_options import reading_options
from leukemia_data.errors import UsageError
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source_choice import announce_source, choose_source


@click.command("audit")
@click.argument("inputs", nargs=-1, metavar="[CACHE|SOURCE]...", type=SourceType())
@click.option(
    "--reference",
    "references",
    multiple=True,
    type=LocalPath(path_type=Path, dir_okay=False),
    help="Table of names with SHA-256 and no pixels (columns path or uid_name, sha256, ...), repeatable.",
)
@click.option(
    "--split",
    "split_name",
    help="Also judge the split that a training would use: subject, given, image, fold:K/N, ...",
)
@click.option(
    "--split-seed", default=0, show_default=True, type=seed_type, help="Seed of that split, as --split-seed of ltrain."
)
@click.option("--near/--no-near", "with_near", default=True, show_default=True, help="Look for near duplicates.")
@click.option(
    "--max-distance",
    default=10,
    show_default=True,
    type=click.IntRange(0, 16),
    help="Near duplicates: most bits of 64 in which two cells' hashes may differ.",
)
@click.option(
    "--out",
    type=LocalPath(path_type=Path, file_okay=False),
    help="Folder for findings.csv, audit.json, balance.png and findings.png (which shows the images).",
)
@click.option("--strict", is_flag=True, help="Exit with code 1 if a leak was found.")
@click.option("--num-threads", type=click.IntRange(1), help="Images decoded at a time (default: one per core).")
@size_filter_option
@cache_root_option
@root_option
@allow_outside_option
@reading_options
@json_option
def command(
    inputs: tuple[ImagePlace, ...],
    references: tuple[Path, ...],
    split_name: str | None,
    split_seed: int,
    with_near: bool,
    max_distance: int,
    out: Path | None,
    strict: bool,
    num_threads: int | None,
    size_px: int | None,
    cache_root: Path,
    root: ImagePlace | None,
    allow_outside: bool,
    reading: ReadingOptions,
    as_json: bool,
) -> None:
    """Audit caches, sources and tables of names: leaks, near duplicates, wrong labels, balance, odd frames.

    Several arguments are compared with each other as well: give what is trained on and what is tested on. Without any
    argument: $LDATA_SOURCE, else ./data, else a built-in sample of generated cells. A SOURCE (folder or CSV) allows
    every check, a CACHE all but those of the original frames, a --reference only those of names and identical files.

    \b
    Examples:
      ldata audit C-NMC_Leukemia --out audit
      ldata audit train.csv valid.csv resnet_18_test.csv --root lab3
      ldata audit cache/C-NMC_Leukemia/224-0123456789ab other-lab --strict
      ldata audit C-NMC_Leukemia --split fold:1/5 --split-seed 0
      ldata audit --reference names.csv --json
    """
    paths = tuple(inputs)
    if not inputs and not references:
        choice = choose_source(inputs, os.environ, cache_root)
        announce_source(choice, CONSOLE)
        paths = choice.paths
    if split_name is not None and len(paths) + len(references) != 1:
        raise UsageError("--split is judged on one cache, source or table: give one")
    # OpenCV and HDF5 take longer to load than --help should.
    from cli.ldata.audit_work import AuditRequest, audit_and_report

    request = AuditRequest(
        inputs=paths,
        references=references,
        root=root,
        allow_outside=allow_outside,
        size_px=size_px,
        split_name=split_name,
        split_seed=split_seed,
        max_distance=max_distance if with_near else None,
        num_threads=num_threads or os.cpu_count() or 1,
        out=out,
        reading=reading,
    )
    audit_and_report(request, as_json=as_json, strict=strict)
