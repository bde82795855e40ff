"""``ltrain plans``: the training plans."""

from __future__ import annotations

import click

from cli.completion import complete_plan
from cli.options import json_option


@click.command("plans")
@click.argument("plan", required=False, shell_complete=complete_plan)
@json_option
def command(plan: str | None, as_json: bool) -> None:
    """List the shipped training plans, or check PLAN (a name, or a file .toml) and show its stages.

    \b
    Examples:
      ltrain plans
      ltrain plans report-a-resnet50
      ltrain plans my-plan.toml
    """
    # torch takes seconds to load: not for --help.
    from cli.ltrain.plans_work import list_plans, show_plan

    if plan is None:
        list_plans(as_json)
    else:
        show_plan(plan, as_json)
