"""``ldata recover-subjects``: find whose cells renumbered files show."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli.locations import LocalPath
from cli.options import allow_outside_option, json_option, root_option
from leukemia_data.errors import UsageError


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
@root_option
@allow_outside_option
@click.option(
    "--out-dir",
    type=LocalPath(path_type=Path, file_okay=False),
    default=Path("recovered"),
    show_default=True,
    help="Folder for the tables with subjects, and recovery.csv.",
)
@click.option(
    "--join-linked",
    is_flag=True,
    help="Write subjects that share identical images as one person, such as 20+21.",
)
@click.option("--num-threads", type=click.IntRange(1), help="Images decoded at a time (default: one per core).")
@json_option
def command(
    tables: tuple[Path, ...],
    references: tuple[Path, ...],
    root: Path | None,
    allow_outside: bool,
    out_dir: Path,
    join_linked: bool,
    num_threads: int | None,
    as_json: bool,
) -> None:
    """Write the lab's tables again with a column subject, found by the content of the files.

    Files are compared by bytes (SHA-256) with a table of names, by decoded pixels with a folder or a cache, so PNG
    copies of BMP files are found too. Path strings, the order of the rows and all other columns stay as they are. An
    image that two subjects share has all candidates in the column subject_candidates. What the lab's own split mixes
    is told as well.

    \b
    Examples:
      ldata recover-subjects train.csv valid.csv --root lab3 --reference C-NMC_Leukemia
      ldata recover-subjects train.csv --root lab3 --reference names.csv --out-dir named
      ldata build recovered/train.csv recovered/valid.csv --root lab3 --name lab
    """
    names = [table.name.lower() for table in tables]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(f"several tables are called {repeated[0]}: they would be written to one file in {out_dir}")
    if any(table.resolve().parent == out_dir.resolve() for table in tables):
        raise UsageError(f"--out-dir {out_dir} is the folder of a table given: it would be overwritten")
    # OpenCV and HDF5 take longer to load than --help should.
    from cli.ldata.recover_subjects_work import RecoveryRequest, recover_and_report

    request = RecoveryRequest(
        tables=tables,
        references=references,
        root=root,
        allow_outside=allow_outside,
        out_dir=out_dir,
        join_linked=join_linked,
        num_threads=num_threads or os.cpu_count() or 1,
    )
    recover_and_report(request, as_json=as_json)
