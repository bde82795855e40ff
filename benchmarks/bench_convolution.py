"""How long a step of a network takes on a CPU with our convolutions, and with those of torch in their place.

Usage: python benchmarks/bench_convolution.py [--model NAME] [--sizes PX ...] [--batch-size N] [--rounds N]

Both networks take one step in every round, in turn; the table has the median milliseconds, and the median of the ratios
within a round. Precisions in which this CPU does not compute are left out.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional

from leukemia_models.devices.precision import BF16, FP32, autocast, has_precision
from leukemia_models.networks.convolution import Conv2d
from leukemia_models.networks.registry import build_model

CPU = torch.device("cpu")
NUM_WARM_ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128], metavar="PX")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    networks = [network(arguments.model, is_ours) for is_ours in (False, True)]
    precisions = [name for name in (FP32, BF16) if has_precision(name, CPU)]
    where = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{arguments.model}, batches of {arguments.batch_size}, {where}")
    print(f"{'px':>4} {'':5} {'torch ms':>9} {'ours ms':>9} {'ratio':>6}")
    for size_px in arguments.sizes:
        images_BCHW = torch.randn(arguments.batch_size, 3, size_px, size_px).to(memory_format=torch.channels_last)
        for precision in precisions:
            rounds = [
                [step_s(model, images_BCHW, precision) for model in networks]
                for _ in range(NUM_WARM_ROUNDS + arguments.rounds)
            ][NUM_WARM_ROUNDS:]
            theirs_ms, ours_ms = (1e3 * statistics.median(seconds) for seconds in zip(*rounds, strict=True))
            ratio = statistics.median(theirs / ours for theirs, ours in rounds)
            print(f"{size_px:>4} {precision:5} {theirs_ms:9.0f} {ours_ms:9.0f} {ratio:6.2f}")


def network(name: str, is_ours: bool) -> nn.Module:
    model = build_model(name, 2, seed=0).to(memory_format=torch.channels_last).train()
    for module in model.modules():
        if isinstance(module, Conv2d) and not is_ours:
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    return model


def step_s(model: nn.Module, images_BCHW: Tensor, precision: str) -> float:
    labels_B = torch.arange(len(images_BCHW)) % 2
    started_s = time.perf_counter()
    with autocast(CPU, precision):
        logits_BK = model(images_BCHW)
    functional.cross_entropy(logits_BK.float(), labels_B).backward()  # type: ignore[no-untyped-call]
    seconds = time.perf_counter() - started_s
    model.zero_grad(set_to_none=True)
    return seconds


if __name__ == "__main__":
    main()
