"""``ltrain compare``: several runs side by side."""

from __future__ import annotations

from pathlib import Path

import click

from cli.locations import LocalPath
from cli.options import json_option


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", type=LocalPath(path_type=Path, file_okay=False))
@click.option(
    "--part",
    default="test",
    show_default=True,
    type=click.Choice(["valid", "test"]),
    help="The judged part to compare by; of a k-fold always its out-of-fold predictions.",
)
@click.option(
    "--out",
    type=LocalPath(path_type=Path, file_okay=False),
    default=Path("comparison"),
    show_default=True,
    help="Folder of tables and figures; files of an earlier comparison in it are replaced.",
)
@json_option
def command(runs: tuple[Path, ...], part: str, out: Path, as_json: bool) -> None:
    """Compare two or more RUNs: folders of runs, of plans with several stages, or of k-folds.

    Writes into --out: the accuracy per epoch of all runs in one figure, and one per stage; confusion matrices side by
    side; ROC curves; accuracy per subject; and a table (Markdown, CSV, JSON) of the settings that differ, sizes, and
    metrics per image and per subject with intervals. Runs that were judged on the same images are compared pair by pair
    on the same draws of subjects; others are not compared.

    \b
    Examples:
      ltrain compare runs/r18 runs/r50 runs/r152
      ltrain compare runs/r18 runs/r18-clahe --part valid --out reports/clahe
      ltrain compare runs/kfold-raw runs/kfold-clahe --json
    """
    # torch and matplotlib take seconds to load: not for --help.
    from cli.ltrain.compare_work import compare

    compare(runs, part=part, out=out, as_json=as_json)
