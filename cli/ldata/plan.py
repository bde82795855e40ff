"""``ldata plan``: what a build will do, as a file for many jobs."""

from __future__ import annotations

import time
from pathlib import Path

import click

from cli.ldata.build import (
    choose_caches,
    codec_option,
    list_choice,
    name_option,
    recheck_option,
    shard_size_option,
    sizes_option,
    wait_option,
)
from cli.locations import LocalPath
from cli.options import (
    allow_outside_option,
    cache_root_option,
    json_option,
    recipe_option,
    root_option,
    source_argument,
)
from cli.reading_options import reading_options
from leukemia_data.errors import UsageError
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions


@click.command("plan")
@source_argument
@sizes_option
@recipe_option
@cache_root_option
@name_option
@root_option
@allow_outside_option
@reading_options
@shard_size_option
@codec_option
@wait_option
@recheck_option
@click.option("--out", type=LocalPath(path_type=Path, dir_okay=False), required=True, help="The plan, a file to write.")
@json_option
def command(
    source: tuple[ImagePlace, ...],
    sizes_px: tuple[int, ...],
    recipe_name: str,
    cache_root: Path,
    name: str | None,
    root: ImagePlace | None,
    allow_outside: bool,
    reading: ReadingOptions,
    shard_size: str | None,
    codec: str | None,
    wait: bool,
    recheck: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Plan what `ldata build` would do with SOURCE, for the jobs of a batch system.

    Jobs make the shards of the plan in any number of shares, `ldata commit` makes the caches of them: the same bytes as
    one `ldata build`. All of them must see the source, the caches and the plan under the same absolute paths.

    \b
    Examples:
      ldata plan C-NMC_Leukemia --size 224 --cache /shared/caches --out cells.plan
      ldata build --plan cells.plan --task 1/40     # ... and so on, to 40/40, in any order
      ldata commit cells.plan
    """
    started_s = time.perf_counter()
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.absolute().parent}")
    wanted = choose_caches(cache_root.absolute(), None, recipe_name, sizes_px, shard_size, codec)
    listed, list_now, cache_name = list_choice(source, wanted, name, root, allow_outside, reading, cache_root)
    from cli.ldata.build_work import BuildRequest
    from cli.ldata.engine_choice import EngineChoice
    from cli.ldata.plan_work import write_plan_of

    request = BuildRequest(
        listed=listed,
        list_now=list_now,
        name=cache_name,
        wanted=wanted,
        engine=EngineChoice("local", None, 1),
        allowed_bad=None,
        started_s=started_s,
        wait=wait,
        recheck=recheck,
    )
    write_plan_of(request, out.absolute(), as_json=as_json)
