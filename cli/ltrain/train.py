"""``ltrain`` with options alone: train a network on a cache, in one stage or by a plan, then judge it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from cli.ltrain.data_check import check_data, tell_of_sources
from cli.ltrain.drafts import Machine, draft_runs
from cli.ltrain.prepare import Run, begin_runs, take_up_runs
from cli.ltrain.requested_plan import requested_plan
from cli.ltrain.restart import as_resumed, clear_beginning, may_go_on, require_as_drafted
from cli.ltrain.runs_on_ranks import is_finished, on_all_ranks
from cli.ltrain.train_request import TrainRequest
from cli.output import print_json, print_note, print_text
from leukemia_data.errors import UsageError
from leukemia_models.devices.distributed import Ranks, joined_ranks, rank_device
from leukemia_models.devices.precision import choose_device
from leukemia_models.runs.open_run import closing_caches
from leukemia_models.runs.run_folder import RunFolder, is_begun

if TYPE_CHECKING:
    from leukemia_models.reports.results import Results


def train(request: TrainRequest) -> None:
    """Prepare or take up the stages, train and judge each; rank 0 alone writes and speaks."""
    device = rank_device(choose_device(request.device), os.environ)
    goes_on = may_go_on(request, os.environ)
    with joined_ranks(os.environ, device, wait_minutes=request.wait_minutes) as ranks:
        machine = Machine(device, ranks.processes_here, ranks.world_size)
        runs = on_all_ranks(lambda: _prepare(request, machine, goes_on=goes_on), request, ranks)
        with closing_caches(runs):
            check_data(runs, request, os.environ, ranks)
            tell_of_sources(runs, ranks)
            results = train_stages(runs, request, device, ranks)
    if ranks.is_first:
        _report(runs[-1].folder, results, request.as_json)


def _prepare(request: TrainRequest, machine: Machine, *, goes_on: bool) -> list[Run]:
    if request.resume:
        return take_up_runs(request, machine)
    if "extend" in request.given:
        raise UsageError("--extend is for --resume with another --epochs")
    plan = requested_plan(request)
    if not goes_on or request.out is None:
        return begin_runs(plan, request, machine)
    if not is_begun(request.out):
        clear_beginning(request.out)
        return begin_runs(plan, request, machine)
    drafts = draft_runs(plan, request, machine)
    runs = take_up_runs(as_resumed(request), machine)
    require_as_drafted(runs, drafts, request.out)
    return runs


def train_stages(runs: list[Run], request: TrainRequest, device: torch.device, ranks: Ranks) -> dict[str, Results]:
    """Train and judge the stages that are not finished, one after the other, and return what the last one came to."""
    # Loads scikit-learn and pandas, which take as long as torch: whoever asks wrongly shall not wait for them.
    from cli.ltrain.train_run import train_run

    results: dict[str, Results] = {}
    for number, run in enumerate(runs, 1):
        is_last = number == len(runs)
        if not is_last and is_finished(run, ranks):
            continue
        if len(runs) > 1 and ranks.is_first:
            print_note(f"stage {number}/{len(runs)}: {run.config.stage}")
        results = train_run(run, request, device, ranks)
        if not is_last and ranks.is_first:
            print_note(_stage_lines(results))
    return results


def _stage_lines(results: dict[str, Results]) -> str:
    """What an earlier stage came to; cautions follow once, with the last one."""
    from leukemia_models.reports.result_text import result_text

    return "\n".join(result_text(part, result) for part, result in results.items())


def _lines(results: dict[str, Results]) -> str:
    from leukemia_models.reports.result_text import results_text

    return results_text(results)


def _report(folder: RunFolder, results: dict[str, Results], as_json: bool) -> None:
    if as_json:
        print_json({"run": str(folder.root), "results": {part: result.to_dict() for part, result in results.items()}})
        return
    print_text(_lines(results))
    # The test part, where there is one: its numbers are those to quote.
    pages = [str(folder.part(part) / "summary.md") for part in results]
    print_text(f"Look at {' and '.join([str(folder.history_figure), *pages[-1:]])}")
