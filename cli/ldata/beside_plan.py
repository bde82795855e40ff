"""The options by which ``ldata build`` makes one share of a plan, and which others may stand beside them."""

from __future__ import annotations

import re
from pathlib import Path

import click
from click.core import ParameterSource

from cli.locations import LocalPath
from cli.options import option_name
from leukemia_data.errors import UsageError

_SHARE = re.compile(r"(\d{1,9})/(\d{1,9})")
_MAY_STAND_BESIDE = {"plan_path", "share", "engine", "address", "n_jobs", "as_json"}


def _parse_share(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _SHARE.fullmatch(text)
    if match is None:
        raise UsageError(f"--task {text!r}: give the number of a share and of all shares, such as 3/40")
    share, num_shares = int(match[1]), int(match[2])
    if not 1 <= share <= num_shares:
        raise UsageError(f"--task {text}: shares count from 1 to their number")
    return share, num_shares


plan_option = click.option(
    "--plan",
    "plan_path",
    type=LocalPath(path_type=Path, dir_okay=False),
    help="Make a share of the shards of this plan, instead of SOURCE; see `ldata plan`.",
)
task_option = click.option(
    "--task",
    "share",
    metavar="I/N",
    callback=_parse_share,
    help="With --plan: the I-th (from 1) of N equal shares. Any of them may run again, at once, anywhere.",
)


def check_beside_plan(context: click.Context) -> None:
    """Refuse what a plan has decided already, and half of --plan and --task.

    Raises
    ------
    UsageError
        With the options that may not stand there.
    """
    if context.params["plan_path"] is None or context.params["share"] is None:
        raise UsageError("--plan and --task belong together: --plan PLAN --task I/N")
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    decided = ["SOURCE" if name == "source" else _option(name) for name in given if name not in _MAY_STAND_BESIDE]
    if decided:
        raise UsageError(f"{', '.join(decided)}: not with --plan, which has decided that (or its commit will)")


def _option(name: str) -> str:
    return option_name({"sizes_px": "size", "cache_root": "cache"}.get(name, name))
