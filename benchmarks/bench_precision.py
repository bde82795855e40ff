"""Whether 16 bits cost accuracy: a narrow ResNet-18 trained in fp32 and in bf16, with several seeds each.

Usage: python benchmarks/bench_precision.py CACHE [--seeds 5] [--epochs 8] [--model resnet18-narrow] [--json OUT]

CACHE is a cache with labels, or a folder with one. Each pair of runs has the same seed, images and settings. Prints the
accuracy on the validation images of the image split, by seed, with means and standard deviations. On a CPU without
bf16 arithmetic torch emulates it, which gives the same kind of numbers slowly; the table says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from unittest import mock

import leukemia_models as lm
from leukemia_models.devices import precision as precisions
from leukemia_models.devices.precision import BF16, FP32, choose_device, computes_in_bf16


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--model", default="resnet18-narrow")
    parser.add_argument("--json", type=Path, dest="json_path")
    return parser.parse_args()


def accuracy_of(arguments: argparse.Namespace, precision: str, seed: int) -> float:
    """Train a run in a temporary folder, and return its best validation accuracy."""
    with tempfile.TemporaryDirectory(prefix="bench-precision-") as folder:
        run = lm.train(
            arguments.cache,
            out=Path(folder) / "run",
            model=arguments.model,
            epochs=arguments.epochs,
            split="image",
            allow_leak=True,
            seed=seed,
            precision=precision,
        )
        return float(run.history["valid_accuracy"].max())


def main() -> None:
    arguments = parse_arguments()
    is_emulated = not computes_in_bf16(choose_device("auto"))
    found: dict[str, list[float]] = {FP32: [], BF16: []}
    # Training refuses emulation; its accuracy is that of real 16 bits.
    with mock.patch.object(precisions, "_cpu_computes_in_bf16", return_value=True):
        for seed in range(arguments.seeds):
            for precision, accuracies in found.items():
                accuracies.append(accuracy_of(arguments, precision, seed))
                print(f"seed {seed}, {precision}: {accuracies[-1]:.4f}", file=sys.stderr, flush=True)
    print(f"{arguments.model}, {arguments.epochs} epochs{', bf16 emulated' if is_emulated else ''}")
    print("\n| precision | by seed | mean | standard deviation |\n|---|---|---|---|")
    for precision, accuracies in found.items():
        by_seed = " ".join(f"{value:.3f}" for value in accuracies)
        print(f"| {precision} | {by_seed} | {statistics.mean(accuracies):.4f} | {statistics.stdev(accuracies):.4f} |")
    if arguments.json_path:
        arguments.json_path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
