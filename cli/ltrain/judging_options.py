"""Options of how a finished run answers: with which weights, and shown which views of an image."""

from __future__ import annotations

import click

final_checkpoint_option = click.option(
    "--checkpoint",
    "which",
    type=click.Choice(["final", "best", "last"]),
    default="final",
    show_default=True,
    help="final: the weights the run was judged by, with the BatchNorm statistics chosen for them.",
)

tta_option = click.option(
    "--tta",
    help="Mean answer to several views of an image: none, d4 (8 flips and quarter turns) or rotations:N.  "
    "[default: as the run was judged]",
)

tta_average_option = click.option(
    "--tta-average", type=click.Choice(["logits", "probabilities"]), help="Mean of what.  [default: logits]"
)

excel_option = click.option(
    "--excel",
    "for_excel",
    is_flag=True,
    help="Begin the CSV files with a byte order mark, by which Excel knows UTF-8 (submissions never have one).",
)
