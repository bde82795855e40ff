"""How long `ltrain train` takes from the command to the end of its first step, by part.

Usage: python benchmarks/bench_startup.py CACHE [--repeats 5] [OPTIONS OF ltrain train ...]

CACHE is a cache or a folder with one; options such as `--size 128 --model resnet18` go to the command. Each repeat is a
fresh process, which is ended after its first step. Prints the median of each part, and the processor's seconds beside
the clock's: on a busy machine the latter say more about the machine. The first repeat, which reads files into memory,
is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PARTS = (
    ("python", "interpreter and command line"),
    ("imports", "imports: torch and the library"),
    ("checks", "checks: cache, split, normalisation, digests of the shards, folder of the run"),
    ("opening", "network, streams, recorder"),
    ("batch", "first batch: read, augmented"),
    ("step", "first step: forward, backward, update"),
)
CHILD = """
import json, os, sys, time
import psutil

began_s = psutil.Process().create_time()
marks, spent = {}, {}

def mark(name):
    if name not in marks:
        marks[name], times = time.time() - began_s, os.times()
        spent[name] = times.user + times.system

from cli.ltrain import main
mark("python")
import leukemia_models.runs.train_plan
from leukemia_models.runs import train_run
from leukemia_models.runs.recorder import Recorder
from leukemia_models.training.learner import Learner
mark("imports")

def before(owner, name, part):
    original = getattr(owner, name)
    def wrapped(*given, **options):
        mark(part)
        return original(*given, **options)
    setattr(owner, name, wrapped)

def after_load(learner, *given):
    micro_batch = load(learner, *given)
    mark("batch")
    return micro_batch

def first_step(recorder, *given):
    mark("step")
    print(json.dumps({"marks": marks, "spent": spent}))
    sys.stdout.flush()
    os._exit(0)

load = Learner.load
Learner.load = after_load
before(train_run, "train_run", "checks")
before(train_run, "_open_streams", "checks")
before(train_run, "fit", "opening")
Recorder.on_step = first_step
main(json.loads(sys.argv[1]))
"""


def measure(command: list[str]) -> dict[str, dict[str, float]]:
    """Return the seconds at the end of each part, by clock and by processor."""
    with tempfile.TemporaryDirectory(prefix="bench-startup-") as folder:
        arguments = ["train", *command, "--out", str(Path(folder) / "run")]
        done = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(arguments)], capture_output=True, text=True, check=False
        )
    if done.returncode or not done.stdout:
        sys.exit(done.stderr)
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments, options = parser.parse_known_args()
    command = ["--cache", str(arguments.cache), *options]
    measure(command)
    runs = [measure(command) for _ in range(arguments.repeats)]
    print("| part | seconds | of the processor |\n|---|---|---|")
    before = None
    for name, title in PARTS:
        seconds, spent = (
            statistics.median(run[kind][name] - (run[kind][before] if before else 0.0) for run in runs)
            for kind in ("marks", "spent")
        )
        print(f"| {title} | {seconds:.2f} | {spent:.2f} |")
        before = name
    last = PARTS[-1][0]
    totals = [statistics.median(run[kind][last] for run in runs) for kind in ("marks", "spent")]
    print(f"| **to the end of the first step** | **{totals[0]:.2f}** | {totals[1]:.2f} |")


if __name__ == "__main__":
    main()
