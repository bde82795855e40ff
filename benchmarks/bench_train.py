"""How fast a ResNet-18 trains, beside other ways to train it: one command, a table, JSON and a picture.

Usage: python benchmarks/bench_train.py CACHE --source IMAGES [--only NAME ...] [--rounds N] [--steps N]
       [--seeds N ...] [--accuracy 0.93] [--cap-factor 6] [--json OUT.json] [--figure OUT.png]

CACHE is a cache of 128 px images, or a folder with one, of the original files in IMAGES. First each way takes some
steps in turn, round by round. Then each is trained to the accuracy on the validation images of the image split; those
that need longer than --cap-factor times the plan fast-resnet18 are stopped there. With --json, what the file holds
already is not measured again, so that a long measurement can be continued. benchmarks/README.md has the method.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stream.peer_process import PeerFailedError
from stream.report import machine
from train.peer import FAST, PEERS, Setting, make_setting
from train.process import TrainProcess
from train.report import Outcome, draw, table

BASE = "torchvision"
DEFAULT_CAP_S = 3600.0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [entry.name for entry in PEERS]
    parser.add_argument("cache", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way; 0 skips the steps")
    parser.add_argument("--steps", type=int, default=6, help="timed steps a turn")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="trainings; none skips them")
    parser.add_argument("--accuracy", type=float, default=0.93)
    parser.add_argument("--cap-factor", type=float, default=6.0)
    parser.add_argument("--json", type=Path, dest="json_path")
    parser.add_argument("--figure", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    setting = make_setting(arguments.cache, arguments.source, arguments.size)
    outcomes = [Outcome(entry) for entry in PEERS if entry.name in arguments.only]
    restore(outcomes, arguments.json_path)
    with tempfile.TemporaryDirectory(prefix="bench-train-") as logs:
        measure_steps(outcomes, setting, arguments, Path(logs))
        measure_trainings(outcomes, setting, arguments, Path(logs))
    facts = machine()
    title = (
        f"ResNet-18 at {setting.size_px} px, {len(setting.train_N):,} training and {len(setting.valid_N)} validation "
        f"images, batches of {setting.batch_size}\n{facts['processor']}, {facts['cores']} cores"
    )
    print(f"\n{title}\n\n{table(outcomes, arguments.accuracy, BASE, len(setting.train_N))}")
    if arguments.figure:
        draw(outcomes, arguments.accuracy, title, arguments.figure)


def restore(outcomes: Sequence[Outcome], path: Path | None) -> None:
    if path is None or not path.exists():
        return
    known = json.loads(path.read_text(encoding="utf-8"))["outcomes"]
    for outcome in outcomes:
        if outcome.entry.name in known:
            outcome.restore(known[outcome.entry.name])


def save(outcomes: Sequence[Outcome], path: Path | None) -> None:
    if path is None:
        return
    before = json.loads(path.read_text(encoding="utf-8"))["outcomes"] if path.exists() else {}
    found = {outcome.entry.name: outcome.to_dict() for outcome in outcomes}
    content = {"machine": machine(), "outcomes": {**before, **found}}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure_steps(outcomes: Sequence[Outcome], setting: Setting, arguments: argparse.Namespace, logs: Path) -> None:
    """Give each way a turn in every round, so that a slow minute of the machine hits all alike."""
    for number in range(arguments.rounds):
        for outcome in outcomes:
            # The fast plan's steps are those of its sizes; its time to the accuracy says more.
            if outcome.problem or outcome.entry.name == FAST or len(outcome.images_per_s) > number:
                continue
            say(f"round {number + 1} of {arguments.rounds}: {outcome.entry.name}")
            try:
                process = TrainProcess(outcome.entry, setting, logs / f"{outcome.entry.name}.log")
                try:
                    steps = process.steps(arguments.steps)
                finally:
                    process.close()
            except PeerFailedError as error:
                outcome.problem = f"{error} ({outcome.entry.install})"
                continue
            outcome.images_per_s.append(steps.images_per_s)
            outcome.wait_shares.append(steps.wait_s / steps.seconds)
            save(outcomes, arguments.json_path)


def measure_trainings(outcomes: Sequence[Outcome], setting: Setting, arguments: argparse.Namespace, logs: Path) -> None:
    """Train each way with each seed, the fast plan first: the others are stopped at a multiple of its time."""
    order = sorted(outcomes, key=lambda outcome: outcome.entry.name != FAST)
    for seed in arguments.seeds:
        for outcome in order:
            if outcome.problem is None and seed not in outcome.courses:
                cap_s = DEFAULT_CAP_S if outcome.entry.name == FAST else cap(outcomes, arguments)
                train(outcome, setting, seed, arguments.accuracy, cap_s, logs)
                save(outcomes, arguments.json_path)


def cap(outcomes: Sequence[Outcome], arguments: argparse.Namespace) -> float:
    fast = next((outcome for outcome in outcomes if outcome.entry.name == FAST), None)
    bounds = fast.lower_bounds(arguments.accuracy) if fast is not None else []
    return arguments.cap_factor * statistics.median(bounds) if bounds else DEFAULT_CAP_S


def train(outcome: Outcome, setting: Setting, seed: int, accuracy: float, cap_s: float, logs: Path) -> None:
    course: list[tuple[float, float | None]] = []
    try:
        process = TrainProcess(outcome.entry, setting, logs / f"{outcome.entry.name}.log")
        try:
            for epoch in process.epochs(seed, cap_s):
                course.append((epoch.seconds, epoch.accuracy))
                text = "" if epoch.accuracy is None else f", accuracy {epoch.accuracy:.3f}"
                say(f"{outcome.entry.name}, seed {seed}: epoch {epoch.number} after {epoch.seconds:.0f} s{text}")
                if epoch.accuracy is not None and epoch.accuracy >= accuracy:
                    break
        finally:
            process.close()
    except PeerFailedError as error:
        outcome.problem = f"{error} ({outcome.entry.install})"
        return
    outcome.courses[seed] = course


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
