"""``ldata commit``: make caches of what the jobs of a plan have made."""

from __future__ import annotations

import time
from pathlib import Path

import click

from cli.ldata.build import max_bad_option, on_error_option, parse_max_bad, wait_option
from cli.locations import LocalPath
from cli.options import json_option


@click.command("commit")
@click.argument("plan_path", metavar="PLAN", type=LocalPath(path_type=Path, dir_okay=False))
@on_error_option
@max_bad_option
@wait_option
@json_option
def command(plan_path: Path, on_error: str, max_bad: str, wait: bool, as_json: bool) -> None:
    """Commit the caches of PLAN, when all its shards are made.

    Before, this says which are not, with the commands that make them, and changes nothing. Each new shard is read once.

    \b
    Examples:
      ldata commit cells.plan
      ldata commit cells.plan --on-error quarantine --max-bad 20
    """
    started_s = time.perf_counter()
    allowed_bad = parse_max_bad(max_bad)
    from cli.ldata.commit_work import commit_and_report

    commit_and_report(
        plan_path.absolute(), allowed_bad if on_error == "quarantine" else None, started_s, wait=wait, as_json=as_json
    )
