"""``ldata audit`` and ``recover-subjects``: what is wrong with a data set, and whose cells it shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import CONSOLE, format_table, print_result
from cli.options import (
    FILE,
    FOLDER,
    SEED,
    SOURCE,
    LocalPath,
    OptionValue,
    cache_root_option,
    json_option,
    reading_options,
    size_filter_option,
    table_options,
)
from leukemia_data.errors import SourceError
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.source_choice import announce_source, choose_source

if TYPE_CHECKING:
    from leukemia_data.auditing.audit_image import Check
    from leukemia_data.auditing.run_audit import Audit
    from leukemia_data.auditing.subject_recovery import SubjectRecovery

_COUNTS = ("rows", "found", "ambiguous", "without_subject", "unknown", "unusable", "label_disagreements", "subjects")

num_threads_option = click.option(
    "--num-threads", type=click.IntRange(1), help="Images decoded at a time (default: one per core)."
)


@click.command("audit")
@click.argument("inputs", nargs=-1, metavar="[CACHE|SOURCE]...", type=SOURCE)
@click.option(
    "--reference",
    "references",
    multiple=True,
    type=FILE,
    help="Table of names with SHA-256 and no pixels (columns path or uid_name, sha256, ...), repeatable.",
)
@click.option("--split", help="Also check the split that a training would use: subject, given, image, fold:K/N, ...")
@click.option("--split-seed", "seed", default=0, type=SEED, help="Seed of that split, as --split-seed of ltrain.")
@click.option("--near/--no-near", "with_near", default=True, help="Look for near duplicates.")
@click.option(
    "--max-distance",
    default=10,
    type=click.IntRange(0, 16),
    help="Near duplicates: most bits of 64 in which two cells' hashes may differ.",
)
@click.option(
    "--out",
    type=FOLDER,
    help="Folder for findings.csv, audit.json, balance.png and findings.png (which shows the images).",
)
@click.option("--strict", is_flag=True, help="Exit with code 1 if a leak was found.")
@num_threads_option
@size_filter_option
@cache_root_option
@table_options
@reading_options
@json_option
def audit(
    inputs: tuple[ImagePlace, ...],
    references: tuple[Path, ...],
    with_near: bool,
    max_distance: int,
    strict: bool,
    cache_root: Path,
    as_json: bool,
    **options: OptionValue,
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
    paths = inputs
    if not inputs and not references:
        choice = choose_source(inputs, os.environ, cache_root)
        announce_source(choice, CONSOLE)
        paths = choice.paths
    # Loads OpenCV and HDF5: not for --help.
    from leukemia_data.auditing.run_audit import audit as run_audit

    found = run_audit(
        paths, references=references, max_distance=max_distance if with_near else None, console=CONSOLE, **options
    )
    print_result(found, _audit_lines(found), as_json=as_json)
    if strict and found.leaks:
        raise SourceError(f"the audit found leaks ({', '.join(found.leaks)}), and --strict was given")


def _audit_lines(found: Audit) -> Iterator[str]:
    for number, argument in enumerate(found.arguments):
        count = sum(image.argument == number for image in found.report.images)
        yield f"{argument.name} ({argument.text}): {count:,} images"
    yield ""
    for check in found.report.checks:
        yield _check_line(check, check.text)
    yield ""
    yield from found.conclusion
    for note in found.notes:
        CONSOLE.note(f"note: {note}")
    if found.files:
        yield f"Written: {', '.join(map(str, found.files))}"


def _check_line(check: Check, text: str) -> str:
    count = "" if check.count is None else f"{check.count:,}"
    return f"{check.verdict:<10}{count:>8}  {text}"


@click.command("recover-subjects")
@click.argument("tables", nargs=-1, required=True, metavar="LAB_CSV...", type=LocalPath(path_type=Path))
@click.option(
    "--reference",
    "references",
    required=True,
    multiple=True,
    type=LocalPath(path_type=Path),
    metavar="TREE|CSV|CACHE",
    help="Where the images have their names: a C-NMC folder, a table of names with SHA-256, or a cache; repeatable.",
)
@table_options
@click.option(
    "--out-dir", type=FOLDER, default=Path("recovered"), help="Folder for the tables with subjects, and recovery.csv."
)
@click.option(
    "--join-linked", is_flag=True, help="Write subjects that share identical images as one person, such as 20+21."
)
@num_threads_option
@json_option
def recover_subjects(
    tables: tuple[Path, ...], references: tuple[Path, ...], out_dir: Path, as_json: bool, **options: OptionValue
) -> None:
    """Write the lab's tables again with a column subject, found by the content of the files.

    Files are compared by bytes (SHA-256) with a table of names, by decoded pixels with a folder or a cache, so PNG
    copies of BMP files are found too. Path strings, the order of the rows and all other columns stay as they are. An
    image that two subjects share has all candidates in the column subject_candidates. What the lab's own split mixes
    is printed as well.

    \b
    Examples:
      ldata recover-subjects train.csv valid.csv --root lab3 --reference C-NMC_Leukemia
      ldata recover-subjects train.csv --root lab3 --reference names.csv --out-dir named
      ldata build recovered/train.csv recovered/valid.csv --root lab3 --name lab
    """
    # Loads OpenCV and HDF5: not for --help.
    from leukemia_data.auditing.subject_recovery import recover_subjects as recover

    found = recover(tables, references, out_dir, console=CONSOLE, **options)
    print_result(found, recovery_lines(found), as_json=as_json)


def recovery_lines(found: SubjectRecovery) -> Iterator[str]:
    """Yield what was found for which rows, and what was written; note subjects that the reference shows as one."""
    counts = found.to_dict()
    header = ["table", *(name.replace("_", " ") for name in _COUNTS)]
    rows = [
        [table.path.name, *(f"{values[key]:,}" for key in _COUNTS)]
        for table, values in zip(found.tables, counts["tables"], strict=True)
    ]
    yield format_table(header, rows)
    yield f"\nFound by equal bytes: {counts['all']['by_bytes']:,}, by equal pixels: {counts['all']['by_pixels']:,}."
    mixed = counts["images_of_mixed_subjects"]
    if mixed:
        yield "\nThe split of these tables:"
        for check in found.own_checks:
            yield _check_line(check, check.text.strip())
        for side, one in mixed.items():
            yield f"{side}: {one['images']:,} of {one['of']:,} images are of subjects who are on another side too"
    else:
        yield "One table, one side: give train.csv and valid.csv together to see what the lab's split mixes."
    for names in found.recovery.untied:
        CONSOLE.note(
            f"note: the reference shows identical images of subjects {', '.join(names)}, but none in these tables ties "
            "them; --join-linked writes them as one, so that no split parts them"
        )
    yield f"\nWritten: {', '.join(str(found.out_dir / table.path.name) for table in found.tables)}"
    if found.num_odd:
        yield f"Rows that need a look ({found.num_odd:,}): {found.out_dir / 'recovery.csv'}"
