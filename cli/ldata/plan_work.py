"""The part of ``ldata plan`` that has work to do."""

from __future__ import annotations

from pathlib import Path

from cli.ldata.build_work import BuildRequest, newest_state, plan_request
from cli.ldata.wanted_caches import ListedSource
from cli.output import format_bytes, print_json, print_note, print_text, print_waiting
from leukemia_data.building.job_file import PlanFile, PlanSettings, mark_pending, write_plan
from leukemia_data.building.plan import BuildPlan
from leukemia_data.caches.manifest import manifest_digest
from leukemia_data.files.lock import lock_caches


def write_plan_of(request: BuildRequest, path: Path, *, as_json: bool) -> None:
    """Plan under the caches' locks, write the plan, and say what it holds."""
    directories = request.wanted.directories(request.name)
    with lock_caches(directories, "plan", on_busy=print_waiting if request.wait else None):
        listed, _ = newest_state(request)
        plan = plan_request(request, listed)
        written = write_plan(path, plan, _settings(request, plan, listed))
        mark_pending(directories, written.digest, path)
    if plan.quarantined:
        print_note(f"note: {len(plan.quarantined)} images cannot be used: commit with --on-error quarantine")
    _report(written, plan, as_json)


def _settings(request: BuildRequest, plan: BuildPlan, listed: ListedSource) -> PlanSettings:
    return PlanSettings(
        name=plan.name,
        cache_root=request.wanted.cache_root,
        recipe=plan.recipe,
        sizes_px=request.wanted.sizes_px,
        classes=plan.classes,
        opencv_version=request.wanted.opencv_version,
        shard_capacity=request.wanted.shard_capacity,
        codec=request.wanted.codec,
        codecs=tuple(target.target.codec for target in plan.targets),
        listed_at_ns=listed.listed_at_ns,
        commits=tuple(manifest_digest(target.target.directory) for target in plan.targets),
        quarantined=plan.quarantined,
        recheck_ns=plan.tasks.recheck_ns,
        reading=None if plan.reading is None else dict(plan.reading),
    )


def _report(written: PlanFile, plan: BuildPlan, as_json: bool) -> None:
    num_images = plan.num_to_make
    num_bytes = plan.bytes_to_write()
    if as_json:
        print_json(
            {
                "plan": str(written.path),
                "num_shards": written.num_tasks,
                "num_images": num_images,
                "num_kept": len(plan.records) - len(plan.quarantined) - num_images,
                "num_unusable": len(plan.quarantined),
                "num_bytes": num_bytes,
                "caches": [str(target.target.directory) for target in plan.targets],
            }
        )
        return
    size = format_bytes(num_bytes)
    print_text(f"{written.num_tasks:,} shards to make of {num_images:,} images, {size} to write: {written.path}")
    print_text(f"Next: ldata build --plan {written.path} --task I/N   with I from 1 to N, in any order")
    print_text(f"Then: ldata commit {written.path}")
