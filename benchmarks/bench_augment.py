"""How long the shipped augmentations of a batch take on one core, including the change to channels_last.

Usage: python benchmarks/bench_augment.py [--size PX] [--batch-size N] [--rounds N]

"moved by a warp" are flips as a nearest-neighbour warp of planes and a copy, with the same result. In every round each
has one turn; the table has the fastest and the median round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor

from leukemia_data.augmenting.augment import Augmenter, Columns, draw_parameters
from leukemia_data.augmenting.augmentation import Augmentation, augmentation_names, load_augmentation
from leukemia_data.augmenting.geometry import warp

MEAN, STD = (0.171, 0.1, 0.174), (0.201, 0.125, 0.195)
PART = 12
Way = Callable[[Tensor, int, Tensor], Tensor]


def warped(augmentation: Augmentation, images_BHWC: Tensor, epoch: int, indices_B: Tensor) -> Tensor:
    """Return flips as a warp of planes, normalised, a few images at a time."""
    size_px = images_BHWC.shape[1]
    table_BP = torch.from_numpy(draw_parameters(augmentation, indices_B.numpy(), 0, epoch, size_px))
    affine_B23 = table_BP[:, Columns.AFFINE].reshape(-1, 2, 3)
    mean_C11, std_C11 = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (MEAN, STD))
    offset_C11, scale_C11 = (-mean_C11 / std_C11).float(), (1 / (255 * std_C11)).float()
    out_BCHW = torch.empty(len(images_BHWC), 3, size_px, size_px)
    for start in range(0, len(images_BHWC), PART):
        part = slice(start, start + PART)
        planes_BCHW = images_BHWC[part].permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)
        moved_BCHW = warp(planes_BCHW, affine_B23[part], "nearest")
        torch.addcmul(offset_C11, moved_BCHW, scale_C11, out=out_BCHW[part])
    return out_BCHW


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="side of the images in px")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    shape = (arguments.batch_size, arguments.size, arguments.size, 3)
    images_BHWC = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    ways: dict[str, Way] = {
        name: Augmenter(load_augmentation(name), seed=0, mean=MEAN, std=STD, device="cpu")
        for name in augmentation_names()
    }
    ways["flips, moved by a warp"] = partial(warped, load_augmentation("flips"))
    indices_B = torch.arange(arguments.batch_size)
    one, other = (ways[name](images_BHWC, 1, indices_B) for name in ("flips", "flips, moved by a warp"))
    if not torch.equal(one, other):
        raise SystemExit("the two ways to flip differ")
    del one, other
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for epoch in range(arguments.rounds):
        for name, way in ways.items():
            # Its own memory again, as in a loop over batches.
            way(images_BHWC, epoch, indices_B)
            started_s = time.perf_counter()
            way(images_BHWC, epoch, indices_B).to(memory_format=torch.channels_last)
            seconds[name].append(time.perf_counter() - started_s)
    print(f"ms for {arguments.batch_size} images of {arguments.size} px, one core, torch {torch.__version__}")
    print(f"{'':25} fastest  median")
    for name, values in seconds.items():
        print(f"{name:25} {1e3 * min(values):7.2f} {1e3 * float(np.median(values)):7.2f}")


if __name__ == "__main__":
    main()
