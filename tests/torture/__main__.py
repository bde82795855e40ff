"""Break things at random, and count what survives: ``python -m tests.torture [SCENARIO ...] --seed S --count N``.

Without names all scenarios run. What was lost is told with the command that loses it again; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

from .tally import Tally

_ROUND = 20
_COUNT = 100
_SEED = re.compile(r"seed (\d+):")


def scenario_names() -> list[str]:
    """Modules of this folder that have a function ``run``; nothing is imported to find them."""
    return [path.stem for path in sorted(Path(__file__).parent.glob("[!_]*.py")) if _has_run(path)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios that the command line names, and print their tallies."""
    options = _parse(arguments)
    tallies: dict[str, Tally] = {}
    for name in options.scenarios or scenario_names():
        tallies[name] = _run_scenario(name, options)
    _print(tallies, options)
    return int(any(tally.lost for tally in tallies.values()))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of: {', '.join(scenario_names())}")
    parser.add_argument("--seed", type=int, default=0, help="the first fault's; the next has the next (default: 0)")
    parser.add_argument("--count", type=int, help=f"faults of each scenario (default: its COUNT, or {_COUNT})")
    parser.add_argument("--minutes", type=float, help="go on so long with each scenario, whatever --count says")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.scenarios) - set(scenario_names()))
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(scenario_names())}")
    return options


def _run_scenario(name: str, options: argparse.Namespace) -> Tally:
    """All rounds of a scenario with one bar."""
    scenario = importlib.import_module(f"tests.torture.{name}")
    tally = Tally()
    num_faults = options.count if options.count is not None else getattr(scenario, "COUNT", _COUNT)
    total = None if options.minutes is not None else num_faults
    with tqdm(total=total, desc=name, unit=" faults", dynamic_ncols=True) as bar:

        def report(fault: str, outcome: str) -> None:
            bar.update()
            if outcome != "survived":
                bar.write(f"{name}: {fault}: {outcome}")

        for seed, count in _rounds(options, num_faults):
            tally += _run_round(scenario, seed, count, report)
    return tally


def _run_round(scenario: ModuleType, seed: int, count: int, report: object) -> Tally:
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        tally: Tally = scenario.run(Path(folder), seed, count, report)
    return tally


def _rounds(options: argparse.Namespace, num_faults: int) -> Iterator[tuple[int, int]]:
    """Seed and number of faults of each round: one round, or as many as fit into the minutes."""
    if options.minutes is None:
        yield options.seed, num_faults
        return
    end_s = time.monotonic() + 60 * options.minutes
    seed = options.seed
    while time.monotonic() < end_s:
        yield seed, _ROUND
        seed += _ROUND


def _print(tallies: dict[str, Tally], options: argparse.Namespace) -> None:
    width = max(map(len, tallies))
    print(f"\n{'scenario':<{width}}  {'tried':>8}  {'survived':>8}  {'lost':>6}")
    for name, tally in tallies.items():
        print(f"{name:<{width}}  {tally.tried:>8,}  {tally.survived:>8,}  {len(tally.lost):>6,}")
    for name, tally in tallies.items():
        _print_outcomes(name, tally)
    for name, tally in tallies.items():
        for lost in tally.lost:
            match = _SEED.match(lost)
            again = f"--seed {match[1]} --count 1" if match else f"--seed {options.seed} --count {tally.tried}"
            print(f"\nlost: {lost}\n  again: python -m tests.torture {name} {again}")


def _print_outcomes(name: str, tally: Tally) -> None:
    """How often each kind came to each end, a row a kind; nothing where a scenario does not count that."""
    if not tally.outcomes:
        return
    kinds, ends = (sorted(set(keys)) for keys in zip(*tally.outcomes, strict=True))
    width = max(map(len, kinds))
    print(f"\n{name}:\n{'':<{width}}  " + "  ".join(ends))
    for kind in kinds:
        print(f"{kind:<{width}}  " + "  ".join(f"{tally.outcomes[kind, end]:>{len(end)},}" for end in ends))


def _has_run(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body)


if __name__ == "__main__":
    sys.exit(main())
