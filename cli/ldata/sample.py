"""``ldata sample``: generated cells to try everything with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cli.locations import LocalPath
from cli.options import json_option
from cli.output import format_bytes, print_json, print_text
from cli.progress import progress_bar
from leukemia_data.sources.sample_cells import write_sample


@click.command("sample")
@click.argument("out", type=LocalPath(path_type=Path, file_okay=False))
@click.option("--subjects", "num_subjects", default=24, show_default=True, help="Subjects, two thirds with leukaemia.")
@click.option("--cells", "cells_per_subject", default=20, show_default=True, help="Cells of each subject.")
@click.option("--seed", default=0, show_default=True, help="Another seed, other cells.")
@json_option
def command(out: Path, num_subjects: int, cells_per_subject: int, seed: int, as_json: bool) -> None:
    """Write generated white cells below OUT, in the tree and with the names of C-NMC 2019.

    450x450 24-bit BMP files on exactly black ground, both classes, stain and light differing between subjects. The same
    arguments give the same bytes. They are for trying and testing; nothing medical follows from them.

    \b
    Examples:
      ldata sample demo-images
      ldata sample small --subjects 6 --cells 4 --seed 1
    """
    with progress_bar(num_subjects * cells_per_subject, "generating") as bar:
        summary = write_sample(
            out, num_subjects=num_subjects, cells_per_subject=cells_per_subject, seed=seed, progress=bar.update
        )
    if as_json:
        print_json({**asdict(summary), "root": str(summary.root)})
        return
    print_text(
        f"{summary.num_images} generated cells of {summary.num_all_subjects} leukaemia and {summary.num_hem_subjects} "
        f"healthy subjects, {format_bytes(summary.num_bytes)}, in {summary.root}\nNext: ldata build {summary.root}"
    )
