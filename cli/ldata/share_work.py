"""``ldata build --plan PLAN --task I/N``: make one share of a plan's shards."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from cli.ldata.engine_choice import EngineChoice
from cli.output import print_json, print_note, print_text
from cli.progress import progress_bar
from leukemia_data.building.job_commit import ShareSummary, run_share, share_bounds
from leukemia_data.building.job_file import open_plan
from leukemia_data.errors import BuildError

_MAX_LISTED = 20


def make_share(
    plan_path: Path | None,
    share: tuple[int, int] | None,
    engine: str,
    address: str | None,
    n_jobs: int,
    *,
    as_json: bool,
) -> None:
    """Make the share, and tell what was made and found."""
    assert plan_path is not None
    assert share is not None
    started_s = time.perf_counter()
    plan = open_plan(plan_path.absolute())
    num_images = plan.num_images_of(*share_bounds(*share, plan.num_tasks))
    try:
        with progress_bar(num_images, "building") as bar:
            summary = run_share(
                plan, *share, choose_engine=EngineChoice(engine, address, n_jobs).runner, progress=bar.update
            )
    except KeyboardInterrupt:
        raise BuildError("interrupted: finished shards are kept; the same command goes on where it stopped") from None
    _report(summary, share, time.perf_counter() - started_s, as_json)


def _report(summary: ShareSummary, share: tuple[int, int], seconds: float, as_json: bool) -> None:
    for failure in summary.failures[:_MAX_LISTED]:
        print_note(f"unusable: {failure.record_id}: {failure.reason}")
    if as_json:
        print_json(
            {
                "task": f"{share[0]}/{share[1]}",
                "num_shards": summary.num_shards,
                "num_processed": summary.num_processed,
                "num_found": summary.num_found,
                "unusable": [asdict(failure) for failure in summary.failures],
                "seconds": round(seconds, 3),
            }
        )
        return
    print_text(
        f"Share {share[0]} of {share[1]}: {summary.num_shards:,} shards in {seconds:.1f} s, "
        f"{summary.num_processed:,} images preprocessed, {summary.num_found:,} found made, "
        f"{len(summary.failures):,} unusable"
    )
