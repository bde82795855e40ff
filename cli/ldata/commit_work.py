"""The part of ``ldata commit`` that has work to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from cli.ldata.build_work import report_build
from cli.output import print_waiting
from cli.progress import progress_bar
from leukemia_data.building.build import FailurePolicy
from leukemia_data.building.job_commit import run_plan_commit
from leukemia_data.building.job_file import open_plan
from leukemia_data.errors import BuildError
from leukemia_data.files.lock import lock_caches


def commit_and_report(
    plan_path: Path, allowed_bad: Callable[[int], int] | None, started_s: float, *, wait: bool, as_json: bool
) -> None:
    """Commit under the caches' locks with a progress bar, and print what was committed."""
    plan = open_plan(plan_path)
    directories = [target.directory for target in plan.settings.targets]
    try:
        with (
            lock_caches(directories, "commit", on_busy=print_waiting if wait else None),
            progress_bar(plan.num_images, "reading shards") as bar,
        ):
            summary = run_plan_commit(
                plan,
                policy=FailurePolicy(None if allowed_bad is None else allowed_bad(plan.num_records)),
                package_version=version("leukemia-cells"),
                progress=bar.update,
            )
    except KeyboardInterrupt:
        raise BuildError("interrupted: what the jobs made is kept; the same command commits it") from None
    report_build(summary, plan.num_records, time.perf_counter() - started_s, as_json)
